"""Names by which people call the columns of images, captions and groups, in several languages."""

import re

_IMAGES = """
image images img imagepath imagefile imagename filepath filename file fileid path
bild bilder bildpfad bilddatei bildname datei dateiname dateipfad pfad
fichier nomfichier chemin archivo imagen ruta nombrearchivo immagine percorso nomefile
arquivo imagem caminho nomearquivo bestand bestandsnaam afbeelding plik obraz soubor fil
файл имяфайла изображение путь
画像 画像ファイル ファイル ファイル名 パス
图像 图片 文件 文件名 路径 圖像 圖片 檔案 檔名
이미지 파일 파일명 경로
"""
_CAPTIONS = """
caption captions title text description report findings impression sentence comment alttext
bildunterschrift beschreibung befund befundtext beurteilung titel
legende légende rapport compterendu texte descripción descripcion leyenda informe texto
didascalia descrizione referto testo legenda descrição descricao laudo
bijschrift beschrijving verslag opis popis описание подпись заключение текст
説明 説明文 キャプション 所見 本文
描述 说明 标题 报告 說明 標題 報告
설명 캡션 소견 판독문
"""
_GROUPS = """
patient patientid patientnumber patientname subject subjectid person personid pid case caseid
study studyid scene sceneid product productid sku articlenumber articleid video videoid clip clipid
series seriesid sequence group groupid family site
patienten patientenid patientennummer fall fallid fallnummer szene produkt produktid artikelnummer
gruppe paciente pacienteid paziente produit producto prodotto produto пациент пациентid
患者 患者id 病人 病人id 商品id 환자 환자id
"""


def plain_name(name: str) -> str:
    """A column's name without case, spaces and signs: `Patient_ID` becomes `patientid`."""
    return re.sub(r"[\W_]+", "", name.casefold())


IMAGE_NAMES = frozenset(_IMAGES.split())
CAPTION_NAMES = frozenset(_CAPTIONS.split())
GROUP_NAMES = frozenset(_GROUPS.split())
"""Plain names of the columns of images, captions and groups."""

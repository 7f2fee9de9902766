"""Small data sets in the layouts that people have."""

import json

import cv2
import numpy as np

TEXTS = {
    "german": ("Dateiname", "Befund", "Röntgen: größere Verschattung, keine Ergüsse"),
    "french": ("fichier", "légende", "Un élève âgé près d'une fenêtre à gauche"),
    "spanish": ("archivo", "descripción", "El niño pequeño está jugando aquí"),
    "polish": ("plik", "opis", "Mała dziewczynka je żółte jabłko, pies śpi"),
    "czech": ("soubor", "popis", "Příliš žluťoučký kůň stojí u řeky"),
    "russian": ("файл", "описание", "Красная машина стоит на дороге у леса"),
    "greek": ("αρχείο", "λεζάντα", "Ένα κόκκινο αυτοκίνητο στον δρόμο"),
    "japanese": ("ファイル名", "説明", "赤い車が道路に止まっている。"),
    "korean": ("파일명", "설명", "빨간 자동차가 길에 서 있다"),
    "chinese": ("文件名", "描述", "一辆红色的汽车停在路边，有两个人"),
    "taiwanese": ("檔名", "說明", "一輛紅色的汽車停在路邊，有兩個人"),
}
"""Names of the columns and a caption."""
ENCODINGS = [
    *(("german", encoding) for encoding in ("cp1252", "utf-8", "utf-8-sig", "utf-16")),
    *(("french", "cp1252"), ("spanish", "cp1252"), ("polish", "cp1250"), ("czech", "cp1250")),
    *(("russian", "cp1251"), ("russian", "koi8_r"), ("greek", "cp1253")),
    *(("japanese", "cp932"), ("japanese", "euc_jp"), ("japanese", "utf-16-le")),
    *(("korean", "cp949"), ("chinese", "gb18030"), ("taiwanese", "big5")),
]


def write_images(directory, number=6, size=(40, 48)):
    """Images of noise, 0.png and so on; returns their names."""
    directory.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    names = [f"{index}.png" for index in range(number)]
    for name in names:
        cv2.imwrite(str(directory / name), noise.integers(0, 256, (*size, 3), np.uint8))
    return names


def write_table(path, rows, separator=",", encoding="utf-8"):
    """Rows, of which the first has the names; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        names, *others = rows
        lines = [
            json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in others
        ]
    else:
        lines = [separator.join(map(_quoted, row)) for row in rows]
    path.write_bytes("".join(f"{line}\n" for line in lines).encode(encoding))
    return path


def _quoted(value):
    return '"' + value.replace('"', '""') + '"' if set(value) & set(',;\t|"') else value


def write_coco(root):
    """Six images with a caption each, in both splits; returns the root."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        names = write_images(root / f"{split}2017")
        content = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [
                {"id": i, "image_id": i, "caption": "a dog runs"} for i in range(len(names))
            ],
        }
        path = root / "annotations" / f"captions_{split}2017.json"
        path.write_text(json.dumps(content))
    return root


def files_of(root):
    """The content and time of writing of every file below a directory."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def write_reports(root, language="german", number=60):
    """A table of reports in cp1252 or cp932, with 12 bits in 16, RGBA, and files that are missing,
    empty and broken; returns the names of the bad files."""
    images, captions, text = TEXTS[language]
    encoding = "cp932" if language == "japanese" else "cp1252"
    names = write_images(root, number)
    values = np.random.default_rng(1).integers(0, 4096, (40, 48, 4))
    cv2.imwrite(str(root / names[0]), values[:, :, 0].astype(np.uint16))
    cv2.imwrite(str(root / names[1]), (values // 16).astype(np.uint8))
    bad = names[2:5]
    (root / bad[0]).unlink()
    (root / bad[1]).write_bytes(b"")
    (root / bad[2]).write_bytes((root / bad[2]).read_bytes()[:200])
    rows = [(images, captions), (names[5], "")]
    rows += [
        (name, f"{text} {'links' if index % 2 else 'rechts'}") for index, name in enumerate(names)
    ]
    write_table(root / "liste.csv", rows, ";", encoding)
    return bad

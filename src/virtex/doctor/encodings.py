"""The encoding of a text whose author did not name it.

UTF-8 and UTF-16 are certain. Of other encodings, the one is taken in which the letters beyond ASCII
are most of all those of one language; that is a guess, so it comes with an example of the text.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from virtex.data.plain_text import UTF_8
from virtex.errors import UserError
from virtex.files import reading

_CHUNK = 1 << 20
_SAMPLE = 1 << 16
_EXAMPLE, _LINES = 60, 20
_MARKS = {
    codecs.BOM_UTF8: UTF_8,
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the mark at the beginning of a file; that of UTF-32 begins as that of UTF-16."""
_KANA = "".join(map(chr, (*range(0x3041, 0x3097), *range(0x30A1, 0x30F7), 0x30FC, 0x3001, 0x3002)))
_RUSSIAN = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
# Frequent characters of languages that have thousands.
_KOREAN = (
    "이다가는을의에고하지한사서있기로도리나어아를은자그대시해인스들라일부정구수지전제보장상원과"
    "주공안여선연비요드성마조니거소만게동으음파방진신생간우차무물미위빨색고양개람두노러"
)
_SIMPLIFIED = (
    "的一是不了在有人我他这个中大来上国和地到说时要就出会可也你对生能而子那得于着下自之年过"
    "后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心"
    "红色黑白两只站坐前旁边，。"
)
_TRADITIONAL = (
    "的一是不了在有人我他這個中大來上國和地到說時要就出會可也你對生能而子那得於著下自之年過"
    "後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心"
    "紅色黑白兩隻站坐前旁邊，。"
)
_WESTERN = (  # each of one language or of several with nearly the same letters
    "äöüß",
    "àâæçéèêëîïôœùûüÿ",
    "áéíóúüñ¿¡",
    "àèéìíòóùú",
    "ãõçáéíóúâêôàü",
    "åäöæøéü",
    "áéíóúýþðæö",
    "äëïöüéèóê",
)
_SIGNS = "–—‘’“”„…•«»°²³µ×±§€·ºª"
"""Signs that stand in texts of any language."""


@dataclass(frozen=True)
class _Candidate:
    """An encoding, with the letters beyond ASCII of a language that is written in it.

    `share` is the least share of such letters in ordinary text, which is lower where these are only
    the frequent ones.
    """

    encoding: str
    letters: str
    share: float = 1.0


_CANDIDATES = (  # of equal scores, the first is taken
    *(_Candidate("cp1252", letters) for letters in _WESTERN),
    _Candidate("cp1250", "ąćęłńóśźż"),
    _Candidate("cp1250", "áčďéěíňóřšťúůýž"),
    _Candidate("cp1250", "áäčďéíĺľňóôŕšťúýž"),
    _Candidate("cp1250", "áéíóöőúüű"),
    _Candidate("cp1250", "čćđšž"),
    _Candidate("cp1250", "ăâîşţ"),
    _Candidate("cp1254", "âçğıîöşüûİ"),
    _Candidate("cp1251", _RUSSIAN),
    _Candidate("cp1251", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя"),
    _Candidate("koi8_r", _RUSSIAN),
    _Candidate("cp1253", "αβγδεζηθικλμνξοπρστυφχψωςάέήίόύώϊϋΐΰ"),
    _Candidate("cp932", _KANA, 0.3),
    _Candidate("euc_jp", _KANA, 0.3),
    _Candidate("cp949", _KOREAN, 0.3),
    _Candidate("gb18030", _SIMPLIFIED, 0.2),
    _Candidate("big5", _TRADITIONAL, 0.2),
)


@dataclass(frozen=True)
class FoundEncoding:
    """The encoding of a text; `example` is a part of it with letters beyond ASCII if it is guessed.

    `example` is None where the encoding is certain.
    """

    name: str
    example: str | None = None


def find_encoding(path: Path) -> FoundEncoding:
    """The encoding of a text file; raises UserError if it is not text of any known one."""
    with reading(path):
        with path.open("rb") as file:
            start = file.read(_SAMPLE)
        for mark, name in _MARKS.items():
            if start.startswith(mark):
                return FoundEncoding(name)
        if b"\0" in start:
            return FoundEncoding(_unmarked_utf_16(path, start))
        if _is_encoded(path, UTF_8):
            return FoundEncoding(UTF_8)
        sample = _beyond_ascii(path)
        for candidate in _ranked(sample):
            if _is_encoded(path, candidate):
                return FoundEncoding(candidate, _example(sample.decode(candidate, "ignore")))
    raise UserError(
        f"{path} is not text of any encoding that is recognised; convert it to UTF-8, or give its"
        " encoding with --encoding"
    )


def _unmarked_utf_16(path: Path, start: bytes) -> str:
    """UTF-16 without its mark, by the side of ASCII characters on which their zero byte is."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if 16 * max(even, odd) < len(start) // 2:  # a table has separators and paths
        raise UserError(f"{path} holds zero bytes, so it is not text; expected a table or captions")
    return "utf-16-be" if even > odd else "utf-16-le"


def _is_encoded(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    with path.open("rb") as file:
        more = True
        while more:
            chunk = file.read(_CHUNK)
            more = bool(chunk)
            try:
                decoder.decode(chunk, final=not more)
            except UnicodeDecodeError:
                return False
    return True


def _beyond_ascii(path: Path) -> bytes:
    """The first lines with bytes beyond ASCII."""
    lines: list[bytes] = []
    size = 0
    for line in _lines(path):
        if not line.isascii():
            lines.append(line)
            size += len(line)
            if size > _SAMPLE:
                break
    return b"".join(lines)


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(_SAMPLE):
            yield line


def _ranked(sample: bytes) -> list[str]:
    """The encodings that have any letter of their language in the sample, the likeliest first."""
    scores: dict[str, float] = {}
    for candidate in _CANDIDATES:
        score = _score(sample.decode(candidate.encoding, "ignore"), candidate)
        name = candidate.encoding
        scores[name] = max(score, scores.get(name, 0.0))
    likely = sorted(scores, key=scores.__getitem__, reverse=True)
    return [name for name in likely if scores[name] > 0]


def _score(text: str, candidate: _Candidate) -> float:
    """How well the characters beyond ASCII are those of the candidate's language, at most 1."""
    letters, signs = set(candidate.letters), set(_SIGNS)
    foreign = [c for c in text if not c.isascii() and c not in signs]
    if not foreign:
        return 0.0
    share = sum(c in letters or c.lower() in letters for c in foreign) / len(foreign)
    # A capital after a small letter is the sign of another encoding of the same script.
    turned = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    return min(1.0, share / candidate.share) - turned / len(foreign)


def _example(text: str) -> str:
    """A part of the line, of the first ones, with the most letters beyond ASCII."""
    lines = text.splitlines()[:_LINES]
    line = max(lines, key=lambda each: sum(not c.isascii() for c in each[:_EXAMPLE]))
    first = next(place for place, c in enumerate(line) if not c.isascii())
    begin = max(0, first - _EXAMPLE // 3)
    if begin and " " in line[begin:first]:  # the beginning of a word
        begin = line.index(" ", begin) + 1
    return " ".join(line[begin : begin + _EXAMPLE].split())

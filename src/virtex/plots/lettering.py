"""Text on images: a font that has its letters, and lines that fit into a width in pixels."""

import unicodedata
from collections.abc import Iterator
from contextlib import suppress

from PIL import ImageFont

Font = ImageFont.FreeTypeFont

# Fonts with many alphabets, by their names on Linux, macOS and Windows.
_WIDE_FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
)
_NO_CHARACTER = "\U0010ffff"


def choose_font(text: str, size: int) -> Font:
    """The font of `size` pixels that has the most letters of a text.

    Pillow's own font, which has no accents, is preferred, so that plain English looks the same on
    every machine. The machine's fonts follow.
    """
    own = ImageFont.load_default(size=size)
    assert isinstance(own, Font)
    if not _count_missing(text, own):
        return own
    return min((own, *_wide_fonts(size)), key=lambda font: _count_missing(text, font))


def legible(text: str, font: Font) -> str:
    """The text in letters that the font has: é may become e, other missing letters become ?."""
    return "".join(_drawable(letter, font) for letter in unicodedata.normalize("NFC", text))


def fit(text: str, font: Font, width: int) -> str:
    """The legible text, shortened to end in … if it is wider than `width` pixels."""
    kept = legible(text, font)
    if font.getlength(kept) <= width:
        return kept
    while kept and font.getlength(f"{kept}…") > width:
        kept = kept[:-1]
    return f"{kept}…"


def wrap(text: str, font: Font, width: int) -> list[str]:
    """The legible text in lines of at most `width` pixels; only wider words are broken."""
    lines: list[str] = []
    for word in legible(text, font).split():
        longer = f"{lines[-1]} {word}" if lines else ""
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines += _broken(word, font, width)
    return lines


def _broken(word: str, font: Font, width: int) -> list[str]:
    """Parts as long as `width` allows, of at least one letter."""
    parts = [word[0]]
    for letter in word[1:]:
        if font.getlength(parts[-1] + letter) <= width:
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def _wide_fonts(size: int) -> Iterator[Font]:
    for name in _WIDE_FONTS:
        with suppress(OSError):  # not on this machine
            yield ImageFont.truetype(name, size)


def _count_missing(text: str, font: Font) -> int:
    return sum(not _has(letter, font) for letter in set(unicodedata.normalize("NFC", text)))


def _drawable(letter: str, font: Font) -> str:
    if _has(letter, font):
        return letter
    base = unicodedata.normalize("NFKD", letter)[0]
    if unicodedata.combining(base):
        return ""
    return base if _has(base, font) else "?"


def _has(letter: str, font: Font) -> bool:
    if letter.isascii() or letter.isspace():
        return True
    shape, none = font.getmask(letter), font.getmask(_NO_CHARACTER)
    return (shape.size, bytes(shape)) != (none.size, bytes(none))

"""Text on images: letters that its font has, in lines that fit into a width in pixels."""

import unicodedata

from virtex.plots.fonts import Font, has


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
    """Parts as long as `width` allows, of at least one letter with its marks."""
    parts = [word[0]]
    for letter in word[1:]:
        is_mark = unicodedata.category(letter)[0] == "M"
        if is_mark or font.getlength(parts[-1] + letter) <= width:
            parts[-1] += letter
        else:
            parts.append(letter)
    return parts


def _drawable(letter: str, font: Font) -> str:
    if has(letter, font):
        return letter
    base = unicodedata.normalize("NFKD", letter)[0]
    if unicodedata.combining(base):
        return ""
    return base if has(base, font) else "?"

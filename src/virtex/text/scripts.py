"""What scripts do that other code depends on: spaces between words, and marks on letters."""

import unicodedata
from functools import cache

# Scripts that put no space between words: Thai and Lao, Burmese, Khmer, kana, Han.
_UNSPACED = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_LAST_MARK = 0x1FFFF  # without variation selectors of planes beyond


def is_unspaced(character: str) -> bool:
    """Whether a character belongs to a script that puts no space between words."""
    code = ord(character)
    return any(low <= code <= high for low, high in _UNSPACED)


def is_mark(character: str) -> bool:
    """Whether a character is written on or around the one before it."""
    return unicodedata.category(character)[0] == "M"


@cache
def marks_class() -> str:
    """All marks, as ranges for a character class of a regular expression."""
    ranges: list[list[int]] = []
    for code in range(0x300, _LAST_MARK + 1):
        if not is_mark(chr(code)):
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)

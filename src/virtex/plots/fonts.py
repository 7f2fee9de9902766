"""The font that has the letters of a text, among those that are installed, and what is missing."""

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont, features

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
_SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
_MOST_FILES = 5000  # to open where no program lists the characters of fonts
_MOST_FONTS = 4  # with a letter
_SEARCH_SECONDS = 20

_SYMBOLS = "symbols"
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO")
_SHAPED = (
    *("ARABIC", "HEBREW", "SYRIAC", "THAANA", "NKO", "MONGOLIAN", "THAI", "LAO", "KHMER"),
    *("DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA"),
    *("MALAYALAM", "SINHALA", "MYANMAR", "TIBETAN"),
)
"""Scripts whose letters depend on their neighbours or run from right to left."""


def choose_font(text: str, size: int) -> Font:
    """The font of `size` pixels that has the most letters of a text.

    Pillow's own font, which has no accents, is preferred, so that plain English looks the same on
    every machine. The fonts with many alphabets follow, and then the others that are installed.
    """
    own = ImageFont.load_default(size=size)
    assert isinstance(own, Font)
    best, missing = _better(own, missing_letters(text, own), _WIDE_FONTS, text)
    for letter in _one_of_each_script(missing):
        if letter in missing:
            best, missing = _better(best, missing, _files_with(letter), text)
    return best


def _better(
    best: Font, missing: set[str], files: Iterable[str], text: str
) -> tuple[Font, set[str]]:
    """The first of several fonts that lacks the fewest letters, and these letters."""
    for file in files:
        if not missing:
            break
        with suppress(OSError):  # not on this machine, or without letters of this size
            font = ImageFont.truetype(file, best.size)
            lacking = missing_letters(text, font)
            if len(lacking) < len(missing):
                best, missing = font, lacking
    return best, missing


def missing_letters(text: str, font: Font) -> set[str]:
    """The characters of a text, in NFC, that a font does not have."""
    return {letter for letter in set(unicodedata.normalize("NFC", text)) if not has(letter, font)}


def has(letter: str, font: Font) -> bool:
    """Whether a font has a character; white space and ASCII are in all of them."""
    if letter.isascii() or letter.isspace() or not _is_visible(letter):
        return True
    # Shaping would put a circle below a mark that stands alone.
    unshaped = _unshaped(font)
    shape, none = unshaped.getmask(letter), unshaped.getmask(_NO_CHARACTER)
    return (shape.size, bytes(shape)) != (none.size, bytes(none))


@lru_cache(maxsize=16)
def _unshaped(font: Font) -> Font:
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


def font_advice(texts: Iterable[str]) -> str | None:
    """What is wrong with the drawing of texts on this machine, and the remedy; None if nothing.

    Some scripts may be in no installed font, and some need a library of Pillow to be shaped.
    """
    letters: dict[str, set[str]] = {}
    for letter in set().union(*(unicodedata.normalize("NFC", text) for text in texts)):
        letters.setdefault(_script(letter), set()).add(letter)
    together = {script: "".join(sorted(some)) for script, some in letters.items()}
    lacking = {
        script for script, text in together.items() if missing_letters(text, choose_font(text, 12))
    }
    lines = []
    if lacking:
        names = ", ".join(sorted(map(_name, lacking)))
        lines.append(
            f"no installed font has all letters of {names}, which are drawn as ? or as similar"
            f" letters; install {_fonts_for(lacking)}"
        )
    shaped = sorted(map(_name, letters.keys() & set(_SHAPED) - lacking))
    if shaped and not features.check("raqm"):
        lines.append(
            f"Pillow has no libraqm here, so letters of {', '.join(shaped)} are neither joined nor"
            " put in order; install libraqm, or a build of Pillow that has it"
        )
    return "; ".join(lines) or None


def _is_visible(letter: str) -> bool:
    """Whether something is drawn for a character, unlike for joiners and variation selectors."""
    return unicodedata.category(letter) != "Cf" and not 0xFE00 <= ord(letter) <= 0xFE0F


@cache
def _script(letter: str) -> str:
    """The first word of the name of a letter, which is its script, or `_SYMBOLS`."""
    words = unicodedata.name(letter, "").split()
    if unicodedata.category(letter)[0] not in "LMN" or not words:
        return _SYMBOLS
    if words[0] in ("FULLWIDTH", "HALFWIDTH"):
        words = words[1:]
    return _SYMBOLS if words[0] in ("COMBINING", "MODIFIER", "DIGIT") else words[0].split("-")[0]


def _name(script: str) -> str:
    return script if script == _SYMBOLS else "Han" if script == "CJK" else script.capitalize()


def _fonts_for(scripts: set[str]) -> str:
    fonts = []
    if scripts & set(_CJK):
        fonts.append("Noto Sans CJK (package fonts-noto-cjk of Debian and Ubuntu)")
    if scripts - set(_CJK):
        fonts.append("the Noto fonts (package fonts-noto-core of Debian and Ubuntu)")
    return " and ".join(fonts)


def _one_of_each_script(letters: Iterable[str]) -> list[str]:
    return list({_script(letter): letter for letter in sorted(letters)}.values())


@cache
def _files_with(letter: str) -> tuple[str, ...]:
    """Files of a few installed fonts that have a letter."""
    listed = _listed_by_fontconfig(letter)
    found = _search(letter) if listed is None else listed
    return tuple(sorted(found, key=_preference)[:_MOST_FONTS])


def _preference(file: str) -> tuple[bool, bool, str]:
    """Upright sans-serif fonts of normal weight come first."""
    name = Path(file).name.lower()
    return "regular" not in name, "sans" not in name, file


def _listed_by_fontconfig(letter: str) -> list[str] | None:
    """The files that the program fc-list names; None if it is not installed or fails."""
    program = shutil.which("fc-list")
    if program is None:
        return None
    try:
        listed = subprocess.run(
            [program, "--format", "%{file}\n", f":charset={ord(letter):x}"],
            capture_output=True,
            check=True,
            timeout=_SEARCH_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    files = set(os.fsdecode(listed.stdout).splitlines())
    return [file for file in files if file.lower().endswith(_SUFFIXES)]


def _search(letter: str) -> list[str]:
    """The font files in the directories of the system that have a letter."""
    found = []
    for number, file in enumerate(_font_files()):
        if number == _MOST_FILES:
            break
        with suppress(OSError):
            if has(letter, ImageFont.truetype(file, 12)):
                found.append(file)
    return found


def _font_files() -> Iterator[str]:
    for directory in _font_directories():
        for folder, _, names in os.walk(directory):
            for name in sorted(names):
                if name.lower().endswith(_SUFFIXES):
                    yield str(Path(folder, name))


def _font_directories() -> list[Path]:
    home = Path.home()
    if sys.platform == "win32":
        windows = Path(os.environ.get("WINDIR", "C:/Windows"))
        local = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
        return [windows / "Fonts", local / "Microsoft/Windows/Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts"]
    data = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    own = os.environ.get("XDG_DATA_HOME") or str(home / ".local/share")
    return [Path(each) / "fonts" for each in (own, *data.split(":"))]

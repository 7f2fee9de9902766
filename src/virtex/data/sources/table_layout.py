"""Where a table has what: the names of its columns, its separator and its encoding.

Convention: what is None is found by well-known names, or by the file's extension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from virtex.data.plain_text import UTF_8

IMAGE_COLUMNS = ("image", "filepath", "path", "file_name")
"""Names of the column of image files; the first has priority over the others."""
CAPTION_COLUMNS = ("caption", "title", "text")
CAPTIONS = "captions"
"""The column of lists of captions, in formats that have lists."""
IMAGE_ID = "image_id"

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""Separators of tables by extension."""
_SEPARATORS = {";": "semicolon", "\t": "tab", "|": "vertical bar", ",": "comma"}

_SETTINGS = {
    "image": "DATA.COLUMNS.IMAGE (--image-column)",
    "caption": "DATA.COLUMNS.CAPTION (--caption-column)",
    "split": "DATA.COLUMNS.SPLIT (--split-column)",
    "image_id": "DATA.COLUMNS.ID (--id-column)",
    "group": "DATA.GROUP_COLUMN (--group-column)",
}
_SUBJECTS = {"image": "the image's path", "caption": "the caption"}


@dataclass(frozen=True)
class TableLayout:
    """The layout of a table, as far as it is given.

    `image`, `caption`, `split`, `image_id` and `group` are names of columns. A table without
    `split` is of one split, and one without `group` has no groups. `separator` is one character, as
    is `image_separator`, which stands between several paths in one value of the images. The paths
    are relative to `image_directory`, which is itself relative to the table.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None
    image_id: str | None = None
    group: str | None = None
    separator: str | None = None
    image_separator: str | None = None
    image_directory: str = "."
    encoding: str = UTF_8

    def delimiter(self, suffix: str) -> str:
        """The separator of a file with this extension, in lower case."""
        return DELIMITERS[suffix] if self.separator is None else self.separator


class ColumnNames(NamedTuple):
    """The names of the columns that are read; None for those that are not."""

    image: str
    caption: str
    split: str | None
    image_id: str | None
    group: str | None
    has_lists: bool
    """Whether `caption` is the well-known column of lists."""

    @property
    def all(self) -> list[str]:
        """Every column that is read, each once."""
        names = (self.image, self.caption, self.split, self.image_id, self.group)
        return list(dict.fromkeys(name for name in names if name is not None))


def find_columns(
    given: Sequence[str], layout: TableLayout, *, lists: bool
) -> tuple[ColumnNames, list[str]]:
    """The columns to read among the `given` names, and a line for each name that was guessed.

    `lists` is whether the format has lists. Raises ValueError, with an argument for everything that
    is missing, ambiguous or named twice.
    """
    problems: list[str] = []
    guesses: list[str] = []
    accepted = {
        "image": IMAGE_COLUMNS,
        "caption": (*CAPTION_COLUMNS, CAPTIONS) if lists else CAPTION_COLUMNS,
    }
    found: dict[str, str | None] = {
        "image_id": IMAGE_ID if IMAGE_ID in given and layout.image != IMAGE_ID else None
    }
    for column in _SETTINGS:
        name = getattr(layout, column)
        try:
            if name is not None:
                found[column] = _named(given, name, column)
            elif column in accepted:
                found[column] = _guessed(given, accepted[column], column)
                if found[column] not in (accepted[column][0], CAPTIONS):
                    guesses.append(_guess(found[column], column))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(*problems)
    image, caption = found["image"], found["caption"]
    assert image is not None
    assert caption is not None
    names = ColumnNames(
        image=image,
        caption=caption,
        split=found.get("split"),
        image_id=found.get("image_id"),
        group=found.get("group"),
        has_lists=layout.caption is None and caption == CAPTIONS,
    )
    return names, guesses


class CaptionColumns(NamedTuple):
    """The positions of the captions and, if the layout names it, of the split.

    `guess` is a line for the name of the captions if it was guessed.
    """

    captions: int
    split: int | None
    guess: str | None


def find_caption_columns(given: Sequence[str], layout: TableLayout) -> CaptionColumns:
    """Find the columns without images.

    Raises ValueError, with an argument for each of them that is missing or ambiguous.
    """
    problems, places = [], []
    for column in ("caption", "split"):
        name = getattr(layout, column)
        try:
            if name is not None:
                places.append(given.index(_named(given, name, column)))
            elif column == "caption":
                places.append(given.index(_guessed(given, CAPTION_COLUMNS, column)))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError(*problems)
    name = given[places[0]]
    is_guess = layout.caption is None and name != CAPTION_COLUMNS[0]
    split = places[1] if len(places) > 1 else None
    return CaptionColumns(places[0], split, _guess(name, "caption") if is_guess else None)


def _guess(name: str | None, column: str) -> str:
    return f"the column {name!r} is taken for {_SUBJECTS[column]}"


def _named(given: Sequence[str], name: str, column: str) -> str:
    count = given.count(name)
    if count == 1:
        return name
    setting = _SETTINGS[column]
    if count:
        raise ValueError(f"it has {count} columns {name!r}; rename all but one of them")
    raise ValueError(
        f"it has no column {name!r}, only {_listed(given)}; set {setting} to one of these"
    )


def _guessed(given: Sequence[str], accepted: Sequence[str], column: str) -> str:
    subject, setting = _SUBJECTS[column], _SETTINGS[column]
    found = [name for name in given if name in accepted]
    if accepted[0] in found:
        found = [name for name in found if name == accepted[0]]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"the columns {', '.join(map(repr, found))} may all be {subject}; name exactly one"
            f" '{accepted[0]}', or set {setting}"
        )
    raise ValueError(
        f"it has no column of {subject}, only {_listed(given)}; name it '{accepted[0]}' (or"
        f" {', '.join(accepted[1:])}), or set {setting}"
    )


def other_separator(header: str, delimiter: str) -> str | None:
    """The likely separator of a first line that does not hold `delimiter`; None if it does."""
    counts = {sign: header.count(sign) for sign in _SEPARATORS if sign != delimiter}
    likely = max(counts, key=counts.__getitem__)
    return likely if counts[likely] and delimiter not in header else None


def separator_hint(header: str, delimiter: str, likely: str) -> str:
    """What to do about a first line without `delimiter` that holds the `likely` separator."""
    name = _SEPARATORS.get(delimiter, repr(delimiter))
    return (
        f"its first line holds no {name}, but {header.count(likely)} times a"
        f" {_SEPARATORS[likely]}; set DATA.SEPARATOR (--separator) to {likely!r}"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"

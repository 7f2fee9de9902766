"""Which column of a table holds what, by the content of its first rows and by its name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.data.sources.table_layout import CAPTIONS, IMAGE_ID
from virtex.doctor.column_names import CAPTION_NAMES, GROUP_NAMES, IMAGE_NAMES, plain_name
from virtex.doctor.detected import Finding, quoted
from virtex.doctor.table_sample import TableSample
from virtex.errors import UserError
from virtex.text.scripts import is_unspaced

_CHECKED = 300
"""The most values of a column that are looked up as files."""
_IMAGE_SEPARATORS = ("|", ";", ",", "\t", " ")
_TRAINING = frozenset(("train", "training"))
_VALIDATION = frozenset(("val", "valid", "validation", "dev"))
_SPLITS = _TRAINING | _VALIDATION | {"test", "testing", "eval"}


@dataclass(frozen=True)
class ImageColumn:
    """The column of images; `found` of its `checked` values are files."""

    name: str
    separator: str | None
    found: int
    checked: int

    @property
    def findings(self) -> Iterator[Finding]:
        """The settings that name it."""
        what = "its values are" if self.found == self.checked else f"{self.found:,} of"
        what = what if self.found == self.checked else f"{what} {self.checked:,} values are"
        yield Finding("DATA.COLUMNS.IMAGE", self.name, f"{what} image files")
        if self.separator is not None:
            yield Finding(
                "DATA.IMAGE_SEPARATOR",
                self.separator,
                "a value holds the paths of several images; one is drawn in each step",
            )


def find_image_column(
    sample: TableSample, name: str | None = None, separator: str | None = None
) -> ImageColumn:
    """The column of which most values are image files; raises UserError if none has any.

    `name` and `separator` are those that the user gives.
    """
    _check_header(sample)
    directory = sample.path.parent
    names = _named(sample, name, "--image-column")
    found = [
        _as_images(directory, column, sample.values[column], separator)
        for column in names
        if name is not None or _looks_like_paths(column, sample.values[column])
    ]
    existing = [column for column in found if column.found]
    if existing:
        return max(
            existing,
            key=lambda column: (
                column.found / column.checked,
                plain_name(column.name) in IMAGE_NAMES,
            ),
        )
    raise UserError(_no_images(sample, [column.name for column in found]))


def _as_images(
    directory: Path, name: str, values: Sequence[Any], separator: str | None
) -> ImageColumn:
    """How many of the values are files, with the separator that most are with."""
    cells = [value for value in values if value]
    cells = cells[:: max(1, len(cells) // _CHECKED)][:_CHECKED]
    tried = [separator] if separator is not None else [None, *_IMAGE_SEPARATORS]
    found = {each: sum(_are_files(directory, cell, each) for cell in cells) for each in tried}
    best = max(tried, key=found.__getitem__)  # the first of equals, so none if it does not matter
    return ImageColumn(name, best, found[best], len(cells))


def _are_files(directory: Path, cell: Any, separator: str | None) -> bool:
    return any(_is_file(directory / path) for path in _paths(cell, separator))


def _paths(cell: Any, separator: str | None) -> list[str]:
    """The paths in a value: of a list, or of a text that a separator parts."""
    if isinstance(cell, str):
        cell = [cell] if separator is None else cell.split(separator)
    return (
        [part.strip() for part in cell if isinstance(part, str)] if isinstance(cell, list) else []
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a text that is too long for a name
        return False


def _looks_like_paths(name: str, values: Sequence[Any]) -> bool:
    """Whether a column may hold images: by its name, or by an extension of some values."""
    texts = [path for value in values[:_CHECKED] for path in _paths(value, None)]
    return plain_name(name) in IMAGE_NAMES or any(map(has_image_extension, texts))


def has_image_extension(text: str) -> bool:
    """Whether a text ends as the name of an image file."""
    _, dot, extension = text.strip().rpartition(".")
    return bool(dot) and extension.lower() in IMAGE_EXTENSIONS


def _check_header(sample: TableSample) -> None:
    """Raise UserError if the first row, which should have names, has an image."""
    if any(
        _is_file(sample.path.parent / name) or has_image_extension(name) for name in sample.values
    ):
        raise UserError(
            f"{sample.path} has no first row with the names of its columns:"
            f" it begins with {quoted(sample.values)}; write such a row above, such as"
            " image,caption"
        )


def _no_images(sample: TableSample, tried: list[str]) -> str:
    """The message for a table of which no value is a file."""
    if not tried:
        return (
            f"{sample.path} has no column whose values are paths of images, only"
            f" {quoted(sample.values)}; expected one with paths relative to {sample.path.parent}"
        )
    name = max(tried, key=lambda each: plain_name(each) in IMAGE_NAMES)
    example = next((str(value) for value in sample.values[name] if value), "")
    hint = ""
    if "\\" in example:
        hint = ", and with / between directories"
    elif not has_image_extension(example):
        hint = ", and with its extension"
    return (
        f"{sample.path}: no value of the column {name!r}, such as {example!r:.120}, is a file below"
        f" {sample.path.parent}; write the path of each image relative to that directory{hint}"
    )


def _named(sample: TableSample, name: str | None, flag: str) -> list[str]:
    """The columns to choose from: all, or the one that the user names."""
    if name is not None and name not in sample.values:
        raise UserError(
            f"{sample.path} has no column {name!r}, only {quoted(sample.values)}; name one of these"
            f" as {flag}"
        )
    return list(sample.values) if name is None else [name]


def find_caption_column(
    sample: TableSample, images: str, name: str | None = None
) -> tuple[Finding, tuple[str, ...]]:
    """The column of captions, and the names of others that hold texts too.

    It is the one that is called so, or else that with the longest text. `images` is the name of
    the column of images. Raises UserError if there is no text.
    """
    lengths = {
        column: length
        for column in _named(sample, name, "--caption-column")
        if column != images and (length := text_length(sample.values[column]))
    }
    if not lengths:
        left = [column for column in sample.values if column != images]
        raise UserError(
            f"{sample.path} has images in the column {images!r}, but no column with texts of"
            f" several words; its other columns are {quoted(left) or 'none'}. Training needs"
            " captions, which are sentences about the images, not labels; name their column as"
            " --caption-column"
        )
    known = [column for column in lengths if plain_name(column) in CAPTION_NAMES]
    best = max(known or lengths, key=lambda each: (each in ("caption", CAPTIONS), lengths[each]))
    reason = f"it holds texts of {lengths[best]:.0f} characters on average"
    if name is None and best not in known:
        reason += ", the longest of all columns; its name is not known"
    others = tuple(column for column in lengths if column != best)
    return Finding("DATA.COLUMNS.CAPTION", best, reason), others


def text_length(values: Sequence[Any]) -> float:
    """The mean number of characters, or 0 for values that are mostly no sentences."""
    texts = [text.strip() for value in values for text in _texts(value) if text.strip()]
    sentences = [text for text in texts if is_sentence(text)]
    if not texts or 2 * len(sentences) < len(texts):
        return 0.0
    return sum(map(len, texts)) / len(texts)


def _texts(value: Any) -> list[str]:
    return [
        text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)
    ]


def is_sentence(text: str) -> bool:
    """Whether a text has two words with letters, or is of a script without spaces; not a path."""
    if has_image_extension(text) or "://" in text:
        return False
    words = [word for word in text.split() if any(map(str.isalpha, word))]
    return len(words) > 1 or sum(map(is_unspaced, text)) > 3


def find_split_column(sample: TableSample, name: str | None = None) -> tuple[Finding | None, str]:
    """The column that names the split of a row, if there is one, and what to check of it.

    A column of which no value is that of validation cannot be used, and is only spoken of.
    """
    for column in _named(sample, name, "--split-column"):
        values = {str(value).strip().lower() for value in sample.values[column] if value}
        if name is None and not (values and values <= _SPLITS and values & _TRAINING):
            continue
        if name is not None or values & _VALIDATION:
            shown = ", ".join(sorted(values)[:6])
            unused = "; rows of other splits than train and val are not used"
            reason = f"its values are {shown}" + (
                unused if values - _TRAINING - _VALIDATION else ""
            )
            return Finding("DATA.COLUMNS.SPLIT", column, reason), ""
        if values - _TRAINING:
            return None, (
                f"The column {column!r} has rows of {quoted(sorted(values))}, and none is called"
                " val. All of them are used for training, and a part is drawn for validation; to"
                " keep some out, remove their rows, or call them val."
            )
    return None, ""


def find_group_column(
    sample: TableSample, images: str, taken: Sequence[str], name: str | None = None
) -> Finding | None:
    """The column that names what an image is of, such as the patient, if its values repeat.

    Columns whose value differs between rows of one image are not groups.
    """
    for column in _named(sample, name, "--group-column"):
        values = [str(value or "").strip() for value in sample.values[column]]
        pairs = {
            (str(image), value)
            for image, value in zip(sample.values[images], values, strict=True)
            if value
        }
        groups, members = {value for _, value in pairs}, {image for image, _ in pairs}
        is_group = 1 < len(groups) < len(pairs) == len(members)
        if name is None and not (
            is_group and column not in taken and plain_name(column) in GROUP_NAMES
        ):
            continue
        reason = (
            f"{len(groups):,} values for {len(members):,} images: all images of one stay on one"
            " side of the validation split"
        )
        return Finding("DATA.GROUP_COLUMN", column, reason)
    return None


def find_id_column(sample: TableSample, name: str | None, images: str) -> Finding | None:
    """The column of ids if the user names it; raises UserError for one that cannot be used."""
    if name is not None:
        return Finding("DATA.COLUMNS.ID", _named(sample, name, "--id-column")[0], "as given")
    ids: Mapping[str, list[Any]] = {IMAGE_ID: sample.values.get(IMAGE_ID, [])}
    wrong = next((value for value in ids[IMAGE_ID] if not _is_whole(value)), None)
    if wrong is not None and images != IMAGE_ID:
        raise UserError(
            f"{sample.path}: the column 'image_id' has values such as {wrong!r}, and ids must be"
            " whole numbers; rename the column, or name another one as --id-column"
        )
    return None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) or (
        isinstance(value, str) and value.removeprefix("-").isdecimal()
    )

"""Which column of a table has the images, and the directory that its paths are relative to."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.doctor.column_names import IMAGE_NAMES, plain_name
from virtex.doctor.detected import Choice, quoted
from virtex.doctor.table_sample import TableSample, named_columns
from virtex.errors import UserError

_CHECKED = 300
"""The most values of a column that are looked up as files."""
_SEPARATORS = ("|", ";", ",", "\t", " ")
_DIRECTORIES = 1000
"""The most directories that are searched for images."""
_FEW = 20  # values that are looked up in each of them


@dataclass(frozen=True)
class ImageColumn:
    """The column of images; `found` of its `checked` values are files.

    Their paths are relative to `directory`, itself relative to the table; None is that of the
    table. `separator` parts several paths in a value.
    """

    name: str
    separator: str | None
    directory: str | None
    found: int
    checked: int

    @property
    def choices(self) -> Iterator[Choice]:
        """The settings that describe it."""
        all_found = self.found == self.checked
        what = "its" if all_found else f"{self.found:,} of {self.checked:,}"
        yield Choice("DATA.COLUMNS.IMAGE", self.name, f"{what} values are image files")
        if self.directory is not None:
            reason = "where the images are; their paths are not relative to the table"
            yield Choice("DATA.IMAGE_DIRECTORY", self.directory, reason)
        if self.separator is not None:
            reason = "a value has the paths of several images; one is drawn in each step"
            yield Choice("DATA.IMAGE_SEPARATOR", self.separator, reason)


def find_image_column(
    sample: TableSample,
    name: str | None = None,
    *,
    separator: str | None = None,
    directory: str | None = None,
) -> ImageColumn:
    """The column of which most values are image files; raises UserError if none has any.

    Without a `directory`, images are looked for beside the table, and then in the directories
    below. What is not None is given by the user.
    """
    _check_header(sample)
    columns = [
        column
        for column in named_columns(sample, name, "--image-column")
        if name is not None or _looks_like_paths(column, sample.values[column])
    ]
    found = []
    for column in columns:
        cells = [value for value in sample.values[column] if value]
        cells = cells[:: max(1, len(cells) // _CHECKED)][:_CHECKED]
        base = directory or _image_directory(sample.path.parent, cells)
        found.append(_described(sample, column, cells, base, separator))
    existing = [column for column in found if column.found]
    if not existing:
        raise UserError(_no_images(sample, columns, directory))
    return max(
        existing,
        key=lambda column: (column.found / column.checked, plain_name(column.name) in IMAGE_NAMES),
    )


def has_image_extension(text: str) -> bool:
    """Whether a text ends as the name of an image file."""
    _, dot, extension = text.strip().rpartition(".")
    return bool(dot) and extension.lower() in IMAGE_EXTENSIONS


def _described(
    sample: TableSample, name: str, cells: Sequence[Any], base: str | None, separator: str | None
) -> ImageColumn:
    """How many of the values are files, with the separator by which most are."""
    directory = sample.path.parent / (base or ".")
    tried = [separator] if separator is not None else [None, *_SEPARATORS]
    found = {each: _count_files(directory, cells, each) for each in tried}
    best = max(tried, key=found.__getitem__)  # the first of equals, so none if it does not matter
    return ImageColumn(name, best, base, found[best], len(cells))


def _image_directory(directory: Path, cells: Sequence[Any]) -> str | None:
    """Where the images are, if that is another directory than that of the table.

    Relative paths are looked up in it and below; of absolute ones it is what they share.
    """
    some = cells[:: max(1, len(cells) // _FEW)]
    paths = [
        path
        for cell in some
        for separator in (None, *_SEPARATORS)
        for path in _paths(cell, separator)
    ]
    absolute = [path for path in paths if Path(path).is_absolute() and _is_file(Path(path))]
    if absolute:
        whole = os.path.commonpath([Path(path).parent for path in absolute])
        return None if Path(whole).is_relative_to(directory) else whole
    if any(_is_file(directory / path) for path in paths):
        return None
    counts = {
        below: sum(_is_file(below / path) for path in paths)
        for below in islice(_directories(directory), _DIRECTORIES)
    }
    best = max(counts, key=counts.__getitem__, default=directory)
    return best.relative_to(directory).as_posix() if counts.get(best) else None


def _directories(directory: Path) -> Iterator[Path]:
    """All directories below one, without hidden ones."""
    for parent, names, _ in os.walk(directory):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield from (Path(parent, name) for name in names)


def _count_files(directory: Path, cells: Sequence[Any], separator: str | None) -> int:
    """The number of values of which a path is a file."""
    return sum(
        any(_is_file(directory / path) for path in _paths(cell, separator)) for cell in cells
    )


def _paths(cell: Any, separator: str | None) -> list[str]:
    """The paths in a value: of a list, or of a text that a separator parts."""
    if isinstance(cell, str):
        cell = [cell] if separator is None else cell.split(separator)
    parts = cell if isinstance(cell, list) else []
    return [part.strip() for part in parts if isinstance(part, str)]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a text that is too long for a name
        return False


def _looks_like_paths(name: str, values: Sequence[Any]) -> bool:
    """Whether a column may hold images: by its name, or by an extension of some values."""
    texts = [path for value in values[:_CHECKED] for path in _paths(value, None)]
    return plain_name(name) in IMAGE_NAMES or any(map(has_image_extension, texts))


def _check_header(sample: TableSample) -> None:
    """Raise UserError if the first row, which should have names, has an image."""
    if any(map(has_image_extension, sample.values)):
        raise UserError(
            f"{sample.path} has no first row with the names of its columns: it begins with"
            f" {quoted(sample.values)}; write such a row above, such as image,caption"
        )


def _no_images(sample: TableSample, tried: list[str], directory: str | None) -> str:
    """The message for a table of which no value is a file."""
    base = sample.path.parent / (directory or ".")
    for name in tried or sample.values:
        cells = [value for value in sample.values[name][:_CHECKED] if isinstance(value, str)]
        if stem := next((cell for cell in cells if _has_image_of(base, cell)), None):
            return (
                f"{sample.path}: the values of the column {name!r}, such as {stem!r}, are names of"
                " images without their extensions; write them with these"
            )
    if not tried:
        return (
            f"{sample.path} has no column whose values are paths of images, only"
            f" {quoted(sample.values)}; expected one with paths relative to {base}"
        )
    name = max(tried, key=lambda each: plain_name(each) in IMAGE_NAMES)
    example = next((str(value) for value in sample.values[name] if value), "")
    if "://" in example:
        return (
            f"{sample.path}: the values of the column {name!r}, such as {example!r:.120}, are"
            " addresses; download the images first, and write their paths"
        )
    hint = ", and with / between directories" if "\\" in example else ""
    return (
        f"{sample.path}: no value of the column {name!r}, such as {example!r:.120}, is a file below"
        f" {base}; write the path of each image relative to that directory{hint}, or name the"
        " directory of the images as --image-directory"
    )


def _has_image_of(directory: Path, stem: str) -> bool:
    """Whether there is an image whose name without its extension is `stem`."""
    return any(_is_file(directory / f"{stem}.{extension}") for extension in IMAGE_EXTENSIONS)

"""Rows of separated values, quoted as in CSV; files with tabs may be unquoted."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.data.plain_text import CONVERT, ENCODING_REMEDY, text_lines
from virtex.data.sources.table_layout import (
    DELIMITERS,
    IMAGE_COLUMNS,
    TableLayout,
    other_separator,
)
from virtex.errors import UserError

__all__ = ["DELIMITERS", "IMAGE_COLUMNS", "separated_rows"]

_AS_NAMED = TableLayout()
_MOST_CHARACTERS = 1 << 27  # of one value; the default of the csv module is 131,072
_REMEDY = (
    "a value that begins with a quotation mark, or holds a separator or a line break, must be"
    " in double quotes, and quotation marks inside it must be doubled"
)

_CARRIAGE_RETURN = (
    "a carriage return ends a value, as in files of old Macs, whose lines have no line feed; save"
    " the file with the line ends of Unix or Windows"
)


def separated_rows(
    path: Path, layout: TableLayout | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file, each with the number of the line in which it ends, from 1.

    The first row has the names; a blank line is a row without values. Values may be quoted as in
    CSV. A file with tabs whose quotation marks cannot be CSV quotes, and whose lines all have the
    same number of values, is read without quoting: the marks are part of the values.

    Separator and encoding are those of the `layout`; without one, those of the extension, and
    UTF-8. Raises UserError, with the line, for text of another encoding, for misplaced quotation
    marks, and for one that swallows rows.
    """
    remedy = CONVERT if layout is None else ENCODING_REMEDY
    file = _File(path, layout or _AS_NAMED, remedy, layout is not None)
    if file.delimiter == "\t" and _may_be_unquoted(file) and not _is_quoted(file):
        for number, line in file.lines():
            text = line.rstrip("\r\n")
            yield number, text.split("\t") if text else []
        return
    yield from _quoted_rows(file)


@dataclass(frozen=True)
class _File:
    path: Path
    layout: TableLayout
    remedy: str
    """What to do about text of another encoding."""
    is_described: bool
    """Whether the layout is the user's, who can correct it."""

    @property
    def delimiter(self) -> str:
        return self.layout.delimiter(self.path.suffix.lower())

    def lines(self) -> Iterator[tuple[int, str]]:
        return text_lines(self.path, self.layout.encoding, self.remedy)


def _may_be_unquoted(file: _File) -> bool:
    """Whether a value begins with a quotation mark, none is surely quoted, and all lines with text
    have the same number of values."""
    begins, columns = False, 0
    for number, line in file.lines():
        values = line.rstrip("\r\n").split("\t")
        if values == [""]:
            continue
        columns = columns or len(values)
        marked = [value for value in values if value.startswith('"')]
        begins = begins or bool(marked)
        if len(values) != columns or (marked and number == 1) or any(map(_is_doubled, marked)):
            return False
    return begins


def _is_doubled(value: str) -> bool:
    """Whether a value that begins with a quotation mark is surely quoted: it is empty, or has
    doubled marks inside."""
    return value == '""' or (value.endswith('"') and '""' in value[1:-1])


def _is_quoted(file: _File) -> bool:
    try:
        for _ in _quoted_rows(file):
            pass
    except _QuotingError:
        return False
    return True


class _QuotingError(UserError):
    """Quotation marks that are not CSV quotes."""


def _quoted_rows(file: _File) -> Iterator[tuple[int, list[str]]]:
    path, delimiter = file.path, file.delimiter
    lines: list[str] = []  # of the current row
    rows = csv.reader(_recorded(file.lines(), lines), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        lines.clear()
        begin = rows.line_num + 1
        try:
            row = _next(rows)
        except csv.Error as error:
            if "new-line character" in str(error):
                raise UserError(f"{path}, line {begin}: {_CARRIAGE_RETURN}") from error
            raise _QuotingError(
                f"{path}, line {rows.line_num} is malformed: {error}"
                + (f", in a row that begins in line {begin}" if rows.line_num > begin else "")
                + f"; {_REMEDY}{_separator_remedy(file, lines) if names is None else ''}"
            ) from error
        if row is None:
            return
        names = row if names is None else names
        for number, line in enumerate(lines[1:], begin + 1):
            if _is_row(line.rstrip("\r\n").split(delimiter), names, row, file.layout.image):
                raise _QuotingError(
                    f"{path}, line {begin}: a quotation mark opens a value that ends in line"
                    f" {rows.line_num}, but line {number} in it is a row of its own; {_REMEDY}"
                )
        yield rows.line_num, row


def _separator_remedy(file: _File, lines: list[str]) -> str:
    """What else may be wrong with a first line whose quotation marks are."""
    likely = other_separator(lines[0].replace(file.delimiter, ""), file.delimiter)
    if likely is None or not file.is_described:
        return ""
    return f"; or set DATA.SEPARATOR (--separator), if values are parted by {likely!r}"


def _recorded(lines: Iterable[tuple[int, str]], recorded: list[str]) -> Iterator[str]:
    for _, line in lines:
        recorded.append(line)
        yield line


def _next(rows: Iterator[list[str]]) -> list[str] | None:
    # The limit holds for the whole process, so it is restored before other code runs.
    before = csv.field_size_limit(_MOST_CHARACTERS)
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(before)


def _is_row(values: list[str], names: list[str], row: list[str], image_column: str | None) -> bool:
    """Whether a line inside a value of `row` has an image like that of `row` itself."""
    known = IMAGE_COLUMNS if image_column is None else (image_column,)
    column = next((names.index(name) for name in known if name in names), None)
    if column is None or not len(values) >= len(names) == len(row):
        return False
    image = PurePosixPath(row[column])
    # Counted from either end, as another column may hold separators.
    for value in (values[column], values[column - len(names)]):
        path = PurePosixPath(value.strip('"'))
        if path.suffix == image.suffix and (
            path.suffix[1:].lower() in IMAGE_EXTENSIONS
            or path.parent == image.parent != PurePosixPath(".")
        ):
            return True
    return False

"""The first rows of a table of unknown separator and encoding."""

import csv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from virtex.data.plain_text import text_lines
from virtex.data.sources.table_layout import DELIMITERS
from virtex.data.sources.table_rows import json_rows, parquet_rows
from virtex.doctor.detected import quoted
from virtex.doctor.encodings import FoundEncoding, find_encoding
from virtex.errors import UserError
from virtex.files import reading

ROWS = 5000
"""The most rows of a sample."""
_SEPARATORS = (",", ";", "\t", "|")
_TRIED = 200  # rows for each separator


@dataclass(frozen=True)
class TableSample:
    """The first rows of a table, and how they were read.

    `values` are the values by the name of their column, None where a row has none. `separator` is
    None in formats without one, and `encoding` of Parquet.
    """

    path: Path
    encoding: FoundEncoding | None
    separator: str | None
    values: Mapping[str, list[Any]]

    @property
    def is_named(self) -> bool:
        """Whether the extension alone stands for the separator."""
        return self.separator in (None, DELIMITERS.get(self.path.suffix.lower()))


def named_columns(sample: TableSample, name: str | None, flag: str) -> list[str]:
    """The columns to choose from: all, or the one that the user names."""
    if name is not None and name not in sample.values:
        raise UserError(
            f"{sample.path} has no column {name!r}, only {quoted(sample.values)}; name one of these"
            f" as {flag}"
        )
    return list(sample.values) if name is None else [name]


def read_sample(
    path: Path, *, encoding: str | None = None, separator: str | None = None
) -> TableSample:
    """The first rows of a .csv, .tsv, .jsonl or .parquet file; what is None is found.

    Raises UserError if the file cannot be read, or its rows have no common separator.
    """
    kind = path.suffix.lower()
    with reading(path):
        if kind == ".parquet":
            return TableSample(path, None, None, _columns(parquet_rows(path, _not_binary)))
        found = find_encoding(path) if encoding is None else FoundEncoding(encoding)
        if kind == ".jsonl":
            return TableSample(path, found, None, _columns(json_rows(path, found.name)))
        if separator is None:
            separator = _find_separator(path, found.name)
        rows = _rows(path, found.name, separator, ROWS + 1)
    names, *others = rows
    values = ((0, dict(zip(names, row, strict=False))) for row in others if row)
    return TableSample(path, found, separator, {name: [] for name in names} | _columns(values))


def _columns(rows: Iterator[tuple[int, dict[str, Any]]]) -> dict[str, list[Any]]:
    """The values of the first rows by column."""
    sample = [row for _, row in islice(rows, ROWS)]
    names = dict.fromkeys(name for row in sample for name in row)
    return {name: [row.get(name) for row in sample] for name in names}


def _not_binary(types: list[tuple[str, str]]) -> list[str]:
    """Columns of Parquet without those that hold whole files."""
    return [name for name, kind in types if "binary" not in kind]


def _find_separator(path: Path, encoding: str) -> str:
    """The separator by which most rows have as many values as the first one, of two and more."""
    usual = DELIMITERS[path.suffix.lower()]
    scores: dict[str, tuple[float, int]] = {}
    for separator in sorted(_SEPARATORS, key=lambda sign: sign != usual):
        rows = [row for row in _rows(path, encoding, separator, _TRIED) if row]
        if rows and len(rows[0]) > 1:
            whole = sum(len(row) == len(rows[0]) for row in rows)
            scores[separator] = whole / len(rows), len(rows[0])
    if not scores:
        raise UserError(
            f"{path}: its first line has only one value, whether separated by a comma, a semicolon,"
            " a tab or a vertical bar; expected a column of images and one of captions"
        )
    return max(scores, key=scores.__getitem__)


def _rows(path: Path, encoding: str, separator: str, most: int) -> list[list[str]]:
    """The first rows, read leniently."""
    lines = (line for _, line in text_lines(path, encoding))
    rows: list[list[str]] = []
    with suppress(csv.Error):  # such as a huge value: what was read before is a sample too
        rows.extend(islice(csv.reader(lines, delimiter=separator), most))
    if not rows:
        raise UserError(
            f"{path} is empty; expected a row of names, and rows of images and captions"
        )
    return rows

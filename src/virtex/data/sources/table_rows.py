"""Rows of images and captions from tables, one at a time.

A table has comma- or tab-separated values with a first row of names, a JSON object a line, or is a
Parquet file.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from virtex.data.plain_text import CONVERT, ENCODING_REMEDY, text_lines, undecodable
from virtex.data.records import is_int64
from virtex.data.sources.separated_rows import separated_rows
from virtex.data.sources.table_layout import (
    DELIMITERS,
    CaptionColumns,
    ColumnNames,
    TableLayout,
    find_caption_columns,
    find_columns,
    other_separator,
    separator_hint,
)
from virtex.errors import UserError
from virtex.files import reading

A = TypeVar("A")

KINDS = (*DELIMITERS, ".jsonl", ".parquet")
_BATCH = 4096  # rows of a Parquet file in memory


class Row(NamedTuple):
    """The values of a row; `number` counts lines, or rows in Parquet, from 1.

    A caption, the split and the group are None if the file has null or no value, or no such column.
    """

    number: int
    image: str
    captions: tuple[str | None, ...]
    image_id: int | None
    split: str | None = None
    group: str | None = None
    others: tuple[str, ...] = ()
    """Further images of the captions."""


def row_name(path: Path, number: int) -> str:
    """The name of a row in messages: `line 7`."""
    return f"{'row' if path.suffix == '.parquet' else 'line'} {number}"


def row_error(path: Path, number: int, what: str) -> UserError:
    """An error that names a row."""
    return UserError(f"{path}, {row_name(path, number)}: {what}")


def read_rows(
    path: Path, layout: TableLayout | None = None, notes: list[str] | None = None
) -> Iterator[Row]:
    """All rows of a file of one of `KINDS`; a line for each guessed column is added to `notes`.

    Raises UserError, with the line, if the file cannot be read, is not of the layout's encoding or
    lacks a needed column, or if a row is malformed or lacks a value in one of them.
    """
    layout = layout or TableLayout()
    kind = path.suffix.lower()
    if layout.separator is not None and kind not in DELIMITERS:
        raise UserError(
            f"{path}: DATA.SEPARATOR (--separator) is {layout.separator!r}, and a {kind} file has"
            " no separator; remove the setting"
        )
    if kind in DELIMITERS:
        rows = _separated(path, layout)
    elif kind == ".jsonl":
        rows = json_rows(path, layout.encoding)
    else:
        rows = parquet_rows(
            path, lambda types: _columns(path, [name for name, _ in types], layout)[0].all
        )
    names: ColumnNames | None = None
    with reading(path):
        for number, values in rows:
            if names is None:
                names, guesses = _columns(path, list(values), layout)
                if notes is not None:
                    notes += guesses
            yield _row(path, number, values, names, layout)


def _columns(path: Path, given: list[str], layout: TableLayout) -> tuple[ColumnNames, list[str]]:
    """As `find_columns`; raises UserError with everything that is wrong with the layout."""
    lists = path.suffix.lower() not in DELIMITERS
    return _found(path, given, layout, partial(find_columns, layout=layout, lists=lists))


def caption_columns(path: Path, given: list[str], layout: TableLayout) -> CaptionColumns:
    """As `find_caption_columns`; raises UserError with everything that is wrong."""
    return _found(path, given, layout, partial(find_caption_columns, layout=layout))


def _found(path: Path, given: list[str], layout: TableLayout, find: Callable[[list[str]], A]) -> A:
    """What `find` finds among the `given` names of a table's columns."""
    try:
        return find(given)
    except ValueError as error:
        problems = list(error.args)
    if path.suffix.lower() in DELIMITERS:
        problems = _layout_problems(path, given, layout, problems, find)
    raise UserError(
        f"{path}: {problems[0]}"
        if len(problems) == 1
        else "\n  ".join([f"{path} cannot be read as it is:", *problems])
    )


def _layout_problems(
    path: Path,
    given: list[str],
    layout: TableLayout,
    problems: list[str],
    find: Callable[[list[str]], object],
) -> list[str]:
    """The problems with the columns, and those of separator and encoding that come before them."""
    found, delimiter = [], layout.delimiter(path.suffix.lower())
    if len(given) == 1 and (likely := other_separator(given[0], delimiter)) is not None:
        found.append(separator_hint(given[0], delimiter, likely))
        try:
            find(given[0].split(likely))
            problems = []
        except ValueError as error:
            problems = list(error.args)
    try:
        for _ in text_lines(path, layout.encoding, ENCODING_REMEDY):
            pass
    except UserError as error:
        problems = [*problems, str(error).removeprefix(f"{path}, ")]
    return found + problems


def _row(
    path: Path, number: int, values: Mapping[str, Any], names: ColumnNames, layout: TableLayout
) -> Row:
    def unfit(name: str, expected: str) -> UserError:
        return row_error(path, number, f"'{name}' must be {expected}, not {values.get(name)!r:.80}")

    images = _images(values.get(names.image), layout.image_separator)
    if images is None:
        raise unfit(names.image, "the path of an image")
    captions = values.get(names.caption)
    is_list = names.has_lists or isinstance(captions, list)
    if not is_list or _is_null(captions):
        captions = [captions]
    if not isinstance(captions, list) or not all(
        isinstance(text, str) or _is_null(text) for text in captions
    ):
        raise unfit(names.caption, "a list of texts" if is_list else "a text")
    texts = tuple(None if _is_null(text) else text for text in captions)
    image_id = None
    if names.image_id is not None:
        image_id = _integer(values.get(names.image_id))
        if image_id is None:
            raise unfit(names.image_id, "a whole number of 64 bits")
    split, group = (
        None if name is None else _label(values.get(name)) for name in (names.split, names.group)
    )
    return Row(number, images[0], texts, image_id, split, group, tuple(images[1:]))


def _images(value: object, separator: str | None) -> list[str] | None:
    """The paths in a value of the column of images; None if there are none or it is malformed."""
    paths: list[Any] = value if isinstance(value, list) else [value]
    if isinstance(value, str) and separator is not None:
        paths = [part.strip() for part in value.split(separator)]
    return paths if paths and all(isinstance(path, str) and path for path in paths) else None


def _label(value: object) -> str | None:
    """A value of a column of splits or groups as text; None if it is missing or blank."""
    text = "" if _is_null(value) else str(value).strip()
    return text or None


def _is_null(value: object) -> bool:
    """Whether a value is missing: null, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and value != value)


def _integer(value: object) -> int | None:
    """An integer of 64 bits, which may be written as text; None for any other value."""
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) <= 20:
        value = int(value)
    return value if is_int64(value) else None


def _separated(path: Path, layout: TableLayout) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = separated_rows(path, layout)
    _, names = next(rows, (0, []))
    _columns(path, names, layout)  # even if no row follows
    for number, values in rows:
        if not values:
            continue
        if len(values) != len(names):
            raise UserError(
                f"{path}, line {number}: the row has {len(values)} values for"
                f" {len(names)} columns; put values that hold a separator in double quotes"
            )
        yield number, dict(zip(names, values, strict=True))


def json_rows(path: Path, encoding: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl file, each with the number of its line; raises UserError."""
    for number, line in text_lines(path, encoding, ENCODING_REMEDY):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not well-formed JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, not {line:.80}")
        yield number, values


def parquet_rows(
    path: Path, choose: Callable[[list[tuple[str, str]]], list[str]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file with their numbers, of the columns that `choose` names.

    It gets the names of all columns with their types in Arrow. Raises UserError.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet requires pyarrow: pip install 'virtex-pretraining[table]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = choose([(field.name, str(field.type)) for field in file.schema_arrow])
            batches: Iterable[Any] = file.iter_batches(_BATCH, columns=names, use_threads=False)
            number = 1
            for batch in batches:
                yield from enumerate(_batch_rows(path, batch, number), number)
                number += batch.num_rows
    except pyarrow.ArrowException as error:
        raise UserError(f"{path} is not a Parquet file that can be read: {error}") from error


def _batch_rows(path: Path, batch: Any, first: int) -> list[dict[str, Any]]:
    """The rows of a pyarrow batch; raises UserError, which names the row that is not UTF-8."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except UnicodeDecodeError as error:
        bad = next(row for row in range(batch.num_rows) if not _is_text(batch.slice(row, 1)))
        what = f"a text is not UTF-8: {undecodable(error)}; {CONVERT}"
        raise row_error(path, first + bad, what) from error


def _is_text(batch: Any) -> bool:
    try:
        batch.to_pylist()
    except UnicodeDecodeError:
        return False
    return True

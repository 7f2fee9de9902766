"""Rows of images and captions from tables, one at a time.

A table has comma- or tab-separated values with a first row of names, a JSON object a line, or is a
Parquet file.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from virtex.data.plain_text import CONVERT, text_lines, undecodable
from virtex.data.records import is_int64
from virtex.data.sources.separated_rows import DELIMITERS, IMAGE_COLUMNS, separated_rows
from virtex.errors import UserError
from virtex.files import reading

KINDS = (*DELIMITERS, ".jsonl", ".parquet")
# The first name has priority; two of the others are ambiguous.
_CAPTION = ("caption", "title", "text")
_CAPTIONS = "captions"  # a list, in formats that have lists
_ID = "image_id"
_BATCH = 4096  # rows of a Parquet file in memory


class Row(NamedTuple):
    """The values of a row; `number` counts lines, or rows in Parquet, from 1.

    A caption is None if the file has null or no value.
    """

    number: int
    image: str
    captions: tuple[str | None, ...]
    image_id: int | None


@dataclass(frozen=True)
class _Names:
    """The names of the columns that are read."""

    image: str
    caption: str
    image_id: str | None


def row_name(path: Path, number: int) -> str:
    """The name of a row in messages: `line 7`."""
    return f"{'row' if path.suffix == '.parquet' else 'line'} {number}"


def row_error(path: Path, number: int, what: str) -> UserError:
    """An error that names a row."""
    return UserError(f"{path}, {row_name(path, number)}: {what}")


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a file of one of `KINDS`.

    Raises UserError, with the line, if the file cannot be read, is not UTF-8 or lacks a needed
    column, or if a row is malformed or lacks a value in one of them.
    """
    if path.suffix in DELIMITERS:
        rows = _separated(path)
    elif path.suffix == ".jsonl":
        rows = _json_lines(path)
    else:
        rows = _parquet(path)
    names: _Names | None = None
    with reading(path):
        for number, values in rows:
            if names is None:
                names = _columns(path, list(values))
            yield _row(path, number, values, names)


def _columns(path: Path, given: Sequence[str]) -> _Names:
    has_lists = path.suffix not in DELIMITERS
    captions = (*_CAPTION, _CAPTIONS) if has_lists else _CAPTION
    return _Names(
        _column(path, given, IMAGE_COLUMNS, "the image's path"),
        _column(path, given, captions, "the caption"),
        _ID if _ID in given else None,
    )


def _column(path: Path, given: Sequence[str], accepted: Sequence[str], what: str) -> str:
    found = [name for name in given if name in accepted]
    if accepted[0] in found:
        found = [name for name in found if name == accepted[0]]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{path}: the columns {', '.join(map(repr, found))} may all be {what}; name exactly one"
            f" '{accepted[0]}'"
        )
    raise UserError(
        f"{path} has no column of {what}, only {', '.join(map(repr, given)) or 'nothing'}; name it"
        f" '{accepted[0]}' (or {', '.join(accepted[1:])})"
    )


def _row(path: Path, number: int, values: Mapping[str, Any], names: _Names) -> Row:
    def unfit(name: str, expected: str) -> UserError:
        return row_error(path, number, f"'{name}' must be {expected}, not {values.get(name)!r:.80}")

    image = values.get(names.image)
    if not isinstance(image, str) or not image:
        raise unfit(names.image, "the path of an image")
    captions = values.get(names.caption)
    if names.caption != _CAPTIONS or _is_null(captions):
        captions = [captions]
    if not isinstance(captions, list) or not all(
        isinstance(text, str) or _is_null(text) for text in captions
    ):
        expected = "a list of texts" if names.caption == _CAPTIONS else "a text"
        raise unfit(names.caption, expected)
    texts = tuple(None if _is_null(text) else text for text in captions)
    image_id = None
    if names.image_id is not None:
        image_id = _integer(values.get(names.image_id))
        if image_id is None:
            raise unfit(names.image_id, "a whole number of 64 bits")
    return Row(number, image, texts, image_id)


def _is_null(value: object) -> bool:
    """Whether a value is missing: null, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and value != value)


def _integer(value: object) -> int | None:
    """An integer of 64 bits, which may be written as text; None for any other value."""
    if isinstance(value, str) and value.removeprefix("-").isdecimal() and len(value) <= 20:
        value = int(value)
    return value if is_int64(value) else None


def _separated(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = separated_rows(path)
    _, names = next(rows, (0, []))
    _columns(path, names)  # even if no row follows
    for number, values in rows:
        if not values:
            continue
        if len(values) != len(names):
            raise UserError(
                f"{path}, line {number}: the row has {len(values)} values for"
                f" {len(names)} columns; put values that hold a separator in double quotes"
            )
        yield number, dict(zip(names, values, strict=True))


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}, line {number} is not well-formed JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{path}, line {number}: expected a JSON object, not {line:.80}")
        yield number, values


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet requires pyarrow: pip install 'virtex-pretraining[table]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = _columns(path, file.schema_arrow.names)
            wanted = [name for name in (names.image, names.caption, names.image_id) if name]
            batches: Iterable[Any] = file.iter_batches(_BATCH, columns=wanted, use_threads=False)
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

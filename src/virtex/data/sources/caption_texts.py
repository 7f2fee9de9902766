"""Captions without images, for training a tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from virtex.data.plain_text import text_lines
from virtex.data.sources.json_stream import list_items, text
from virtex.data.sources.separated_rows import DELIMITERS, separated_rows
from virtex.data.sources.table_rows import KINDS as TABLES
from virtex.data.sources.table_rows import read_rows
from virtex.errors import UserError
from virtex.files import reading

KINDS = (".json", *TABLES, ".txt")


_CAPTION = "caption"


def read_captions(path: Path, column: str) -> Iterator[str]:
    """Read the captions in a file, unchanged, in the format that its extension names.

    `.json` has COCO's annotations; `.csv` and `.tsv` have the captions in the column that their
    first row names `column`, `.jsonl` and `.parquet` as the tables of `DATA.FORMAT` table; `.txt`
    has a caption a line. A caption that is null is an empty text.

    Raises UserError if the file cannot be read, is malformed, or has an unknown extension.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        if not path.exists():
            raise UserError(f"{path} does not exist; name a file of captions or a data set")
        raise UserError(f"{path}: the extension must be one of {', '.join(KINDS)}")
    with reading(path):
        if kind == ".json":
            yield from _coco(path)
        elif kind == ".txt":
            for _, line in text_lines(path):
                yield from line.rstrip("\r\n").split("\r")  # the line end of old Macs
        elif kind in DELIMITERS:
            yield from _column(path, column)
        elif column != _CAPTION:
            raise UserError(
                f"{path}: --column is for .csv and .tsv; in this format the caption is in"
                " 'caption', 'title' or 'text', or a list in 'captions', as for DATA.FORMAT table"
            )
        else:
            for row in read_rows(path):
                yield from (caption or "" for caption in row.captions)


def _coco(path: Path) -> Iterator[str]:
    for key, item in list_items(path):
        if key == "annotations":
            is_null = isinstance(item, dict) and item.get("caption", "") is None
            yield "" if is_null else text(path, key, item, "caption")


def _column(path: Path, column: str) -> Iterator[str]:
    rows = separated_rows(path)
    _, names = next(rows, (0, []))
    if column not in names:
        raise UserError(
            f"{path} has no column '{column}', only {', '.join(map(repr, names)) or 'nothing'};"
            " give the name of the captions' column with --column"
        )
    position = names.index(column)
    for number, row in rows:
        if not row:
            continue
        if len(row) <= position:
            raise UserError(f"{path}, line {number}: the row ends before column '{column}'")
        yield row[position]

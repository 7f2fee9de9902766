"""Captions without images, for training a tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from virtex.data.plain_text import ENCODING_REMEDY, text_lines
from virtex.data.sources.json_stream import list_items, text
from virtex.data.sources.separated_rows import separated_rows
from virtex.data.sources.table_file import is_for_training
from virtex.data.sources.table_layout import DELIMITERS, TableLayout
from virtex.data.sources.table_rows import KINDS as TABLES
from virtex.data.sources.table_rows import caption_columns, read_rows
from virtex.errors import UserError
from virtex.files import reading

KINDS = (".json", *TABLES, ".txt")


def read_captions(path: Path, layout: TableLayout, notes: list[str] | None = None) -> Iterator[str]:
    """Read the captions in a file, unchanged, in the format that its extension names.

    `.json` has COCO's annotations; `.csv` and `.tsv` have the captions in the column that the
    layout names, `.jsonl` and `.parquet` as the tables of `DATA.FORMAT` table; `.txt` has a caption
    a line. If the layout names a column of splits, the rows for training are read. A line for a
    column whose name was guessed is added to `notes`. A caption that is null is an empty text.

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
            for _, line in text_lines(path, layout.encoding, ENCODING_REMEDY):
                yield from line.rstrip("\r\n").split("\r")  # the line end of old Macs
        elif kind in DELIMITERS:
            yield from _column(path, layout, notes)
        else:
            for row in read_rows(path, layout, notes):
                if layout.split is None or is_for_training(row.split or ""):
                    yield from (caption or "" for caption in row.captions)


def _coco(path: Path) -> Iterator[str]:
    for key, item in list_items(path):
        if key == "annotations":
            is_null = isinstance(item, dict) and item.get("caption", "") is None
            yield "" if is_null else text(path, key, item, "caption")


def _column(path: Path, layout: TableLayout, notes: list[str] | None) -> Iterator[str]:
    rows = separated_rows(path, layout)
    _, names = next(rows, (0, []))
    captions, split, guess = caption_columns(path, names, layout)
    if guess is not None and notes is not None:
        notes.append(f"{path}: {guess}")
    for number, row in rows:
        if not row:
            continue
        if len(row) <= max(captions, split or 0):
            raise UserError(
                f"{path}, line {number}: the row ends before column {names[captions]!r}"
            )
        if split is None or is_for_training(row[split]):
            yield row[captions]

"""Captions without images, for training a tokenizer."""

from collections.abc import Iterator
from pathlib import Path

from virtex.data.plain_text import text_lines
from virtex.data.sources.json_stream import list_items, text
from virtex.data.sources.separated_rows import DELIMITERS, separated_rows
from virtex.errors import UserError
from virtex.files import reading

KINDS = (".json", *DELIMITERS, ".txt")


def read_captions(path: Path, column: str) -> Iterator[str]:
    """Read the captions in a file, unchanged, in the format that its extension names.

    `.json` has COCO's annotations; `.csv` and `.tsv` have the captions in the column that their
    first row names `column`; `.txt` has a caption a line.

    Raises UserError if the file cannot be read, is malformed, or has an unknown extension.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise UserError(f"{path}: the extension must be one of {', '.join(KINDS)}")
    with reading(path):
        if kind == ".json":
            yield from _coco(path)
        elif kind == ".txt":
            for _, line in text_lines(path):
                yield from line.rstrip("\r\n").split("\r")  # the line end of old Macs
        else:
            yield from _column(path, column)


def _coco(path: Path) -> Iterator[str]:
    for key, item in list_items(path):
        if key == "annotations":
            yield text(path, key, item, "caption")


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

"""Captions without images, from the files in which people keep them."""

import reprlib
from collections.abc import Iterator
from pathlib import Path

from virtex.data.plain_text import text_lines
from virtex.data.sources.json_stream import list_items
from virtex.data.sources.separated_rows import DELIMITERS, separated_rows
from virtex.errors import UserError
from virtex.files import reading

KINDS = (".json", *DELIMITERS, ".txt")


def read_captions(path: Path, column: str) -> Iterator[str]:
    """The captions in a file, as written; what the file is, its extension says.

    `.json` is COCO's annotations; `.csv` and `.tsv` have a first row of names, of which `column` is
    the captions'; `.txt` has a caption a line.

    Raises UserError when the file cannot be read, is malformed, or is of no known kind.
    """
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise UserError(f"{path}: the extension must say what it holds, one of {', '.join(KINDS)}")
    if kind == ".json":
        yield from _coco(path)
        return
    with reading(path):
        if kind == ".txt":
            for _, line in text_lines(path):
                yield from line.rstrip("\r\n").split("\r")  # the old end of a line on a Mac
        else:
            yield from _column(path, column)


def _coco(path: Path) -> Iterator[str]:
    for key, item in list_items(path):
        if key != "annotations":
            continue
        caption = item.get("caption") if isinstance(item, dict) else None
        if not isinstance(caption, str):
            raise UserError(
                f"{path}: every item of 'annotations' needs 'caption', a string;"
                f" one is {reprlib.repr(item)}"
            )
        yield caption


def _column(path: Path, column: str) -> Iterator[str]:
    rows = separated_rows(path)
    _, names = next(rows, (0, []))
    if column not in names:
        raise UserError(
            f"{path} has no column '{column}', only {', '.join(map(repr, names)) or 'nothing'};"
            " name the one of the captions with --column"
        )
    place = names.index(column)
    for number, row in rows:
        if not row:
            continue
        if len(row) <= place:
            raise UserError(f"{path}, line {number}: the row ends before column '{column}'")
        yield row[place]

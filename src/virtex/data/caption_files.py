"""Captions without images, from the files in which people keep them."""

import csv
import reprlib
from collections.abc import Iterator
from pathlib import Path

from virtex.data.json_stream import list_items
from virtex.errors import UserError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
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
    try:
        # newline="": the csv module wants to see line ends inside of quotes.
        with path.open(encoding="utf-8-sig", newline="" if kind in DELIMITERS else None) as file:
            if kind == ".txt":
                yield from (line.rstrip("\n") for line in file)
            else:
                rows = csv.DictReader(file, delimiter=DELIMITERS[kind], strict=True)
                yield from _column(path, rows, column)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}; convert it first") from error
    except csv.Error as error:
        raise UserError(f"{path} is malformed: {error}") from error


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


def _column(path: Path, rows: "csv.DictReader[str]", column: str) -> Iterator[str]:
    names = list(rows.fieldnames or ())
    if column not in names:
        raise UserError(
            f"{path} has no column '{column}', only {', '.join(map(repr, names)) or 'nothing'};"
            " name the one of the captions with --column"
        )
    for row in rows:
        caption = row[column]
        if caption is None:
            raise UserError(f"{path}, line {rows.line_num}: the row ends before column '{column}'")
        yield caption

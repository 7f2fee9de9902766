"""Captions in a table: `train.csv` and `val.csv`, or `.tsv`, `.jsonl`, `.parquet`.

A row has the path of an image below the table's directory and a caption of it. The rows of an image
are one record; records are in order of their image ids. A table may come from anybody, so it cannot
name files elsewhere; a link in its directory can lead to them.
"""

import posixpath
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.images import OnBadImage
from virtex.data.records import hashed_id
from virtex.data.shared_strings import PackedStrings, StringPacker
from virtex.data.sources.image_list import (
    BLANK,
    NULL,
    CaptionedImages,
    check_left_out,
    defect,
)
from virtex.data.sources.table_rows import KINDS, Row, read_rows, row_error, row_name
from virtex.errors import UserError, report_lines


class TableCaptions(CaptionedImages):
    """The records of one split, in shared memory.

    `report` has a line for each kind of item that was left out: images without a caption, blank and
    null captions.
    """

    def __init__(self, root: str, split: str, on_bad_image: OnBadImage = "error") -> None:
        """Read `root`/`split`.csv or its like; `split` is "train" or "val".

        Raises UserError if there is not exactly one, or if it is malformed or has no record; under
        `on_bad_image` "error" also if anything would be left out.
        """
        path = _table(Path(root), split)
        columns = _read(path)
        names = columns.names.packed()
        _check_ids(path, columns, names)
        ids, rows = np.array(columns.ids, np.int64), np.array(columns.rows, np.int64)
        usable = np.flatnonzero(np.array(columns.defects, np.int8) == 0)
        used = rows[usable]
        self.report = _report(path, columns, ids[used])
        check_left_out(path, self.report, on_bad_image)
        if not len(usable):
            raise UserError(f"{path} holds no image with a caption")
        super().__init__(
            Path(root),
            names,
            columns.captions.packed(),
            usable=usable,
            image_ids=ids[used],
            places=np.array(columns.places, np.int64)[used],
        )


@dataclass
class _Columns:
    """The content of the file, column by column, in its order."""

    ids: "array[int]" = field(default_factory=lambda: array("q"))  # of each row, as the next three
    path_ids: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))  # in `names`
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    names: StringPacker = field(default_factory=StringPacker)
    rows: "array[int]" = field(default_factory=lambda: array("q"))  # of each caption
    captions: StringPacker = field(default_factory=StringPacker)
    defects: "array[int]" = field(default_factory=lambda: array("b"))  # of each caption


def _table(root: Path, split: str) -> Path:
    paths = [path for kind in KINDS if (path := root / f"{split}{kind}").is_file()]
    if len(paths) == 1:
        return paths[0]
    if paths:
        names = ", ".join(path.name for path in paths)
        raise UserError(f"DATA.ROOT ({root}) has several tables of one split: {names}; leave one")
    names = ", ".join(f"{split}{kind}" for kind in KINDS)
    raise UserError(
        f"DATA.ROOT ({root}) has no table of the split '{split}'; expected one of {names}"
        " (Parquet needs the extra 'table')"
    )


def _read(path: Path) -> _Columns:
    columns = _Columns()
    former, id_of_path = "", 0
    for row in read_rows(path):
        if row.image != former:  # rows of an image mostly follow each other
            name = _name(path, row)
            columns.names.append(name)
            former, id_of_path = row.image, hashed_id(name)
        columns.path_ids.append(id_of_path)
        columns.ids.append(id_of_path if row.image_id is None else row.image_id)
        columns.places.append(len(columns.names) - 1)
        columns.numbers.append(row.number)
        for caption in row.captions:
            columns.rows.append(len(columns.ids) - 1)
            columns.captions.append(caption or "")
            columns.defects.append(defect(caption))
    return columns


def _name(path: Path, row: Row) -> str:
    """The image's path below the table's directory; raises UserError where it is not below."""
    if "://" in row.image:
        what = f"{row.image!r} is an address; download the images first"
        raise row_error(path, row.number, what)
    name = posixpath.normpath(row.image)
    if posixpath.isabs(name):
        name = posixpath.relpath(name, path.parent.absolute())
    if name in (".", "..") or name.startswith("../") or "\0" in name:
        what = f"{row.image!r} is not a file below {path.parent}; write paths relative to it"
        raise row_error(path, row.number, f"{what}, and link directories of elsewhere into it")
    return name


def _check_ids(path: Path, columns: _Columns, names: PackedStrings) -> None:
    """Raise UserError if an image has two ids or an id two images."""
    ids, path_ids = np.array(columns.ids, np.int64), np.array(columns.path_ids, np.int64)
    places = np.array(columns.places, np.int64)

    def named(row: int) -> str:
        return names[columns.places[row]]

    def where(row: int) -> str:
        return row_name(path, columns.numbers[row])

    for one, other in _conflicts(ids, places):
        if named(one) != named(other):
            raise UserError(
                f"{path}: the image id {ids[one]} is that of {named(one)!r} ({where(one)}) and of"
                f" {named(other)!r} ({where(other)}); give each image its own"
            )
    for one, other in _conflicts(path_ids, ids):
        raise UserError(
            f"{path}: {named(one)!r} has the image id {ids[one]} ({where(one)}) and {ids[other]}"
            f" ({where(other)}); give an image one id"
        )


def _conflicts(
    keys: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> Iterator[tuple[int, int]]:
    """Two rows each time, of which the keys are equal and the values differ."""
    order = np.argsort(keys, kind="stable")
    at = np.flatnonzero((np.diff(keys[order]) == 0) & (np.diff(values[order]) != 0))
    return zip(order[at].tolist(), order[at + 1].tolist(), strict=True)


def _report(path: Path, columns: _Columns, captioned: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """The report, where `captioned` are the ids of the images that have a usable caption."""
    numbers = np.array(columns.numbers, np.int64)
    rows, defects = np.array(columns.rows, np.int64), np.array(columns.defects, np.int8)
    ids, first = np.unique(np.array(columns.ids, np.int64), return_index=True)
    found = {
        "images have no caption": np.sort(first[~np.isin(ids, captioned)]),
        "captions are blank": rows[defects == BLANK],
        "captions are null": rows[defects == NULL],
    }
    return report_lines(
        {
            what: [row_name(path, number) for number in numbers[rows].tolist()]
            for what, rows in found.items()
        }
    )

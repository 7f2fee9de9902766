"""Captions in a table: `train.csv` and `val.csv`, or `.tsv`, `.jsonl`, `.parquet`.

A row has the path of an image below the table's directory and a caption of it; rows of one image
are one record, in order of image ids. Images elsewhere are reached by a link in that directory: a
table, which may come from anybody, names no other files.
"""

import posixpath
from array import array
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
    CaptionColumns,
    CaptionedImages,
    finding,
    lacks,
)
from virtex.data.sources.table_rows import KINDS, Row, broken, place, read_rows
from virtex.errors import UserError


class TableCaptions(CaptionedImages):
    """The records of one split, in shared memory.

    `report` says, a line each, what was left out: images without a caption, blank and
    null captions.
    """

    def __init__(self, root: str, split: str, on_bad_image: OnBadImage = "error") -> None:
        """Read `root`/`split`.csv or its like; `split` is "train" or "val".

        Raises UserError when there is not exactly one, it is malformed, or it has no record; under
        `on_bad_image` "error" also when anything would be left out.
        """
        path = _table(Path(root), split)
        columns = _read(path)
        table = _grouped(path, columns)
        self.report = _findings(path, columns, table)
        if self.report and on_bad_image == "error":
            raise UserError(
                f"{path}: {'; '.join(self.report)}. Correct the file, or set DATA.ON_BAD_IMAGE to"
                " skip to train without these"
            )
        if not len(table.image_ids):
            raise UserError(f"{path} holds no image with a caption")
        super().__init__(Path(root), table)


@dataclass
class _Columns:
    """What the file says, column by column, in its order."""

    ids: "array[int]" = field(default_factory=lambda: array("q"))  # of each row, as the next three
    path_ids: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))  # in `names`
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    names: StringPacker = field(default_factory=StringPacker)
    rows: "array[int]" = field(default_factory=lambda: array("q"))  # of each caption
    captions: StringPacker = field(default_factory=StringPacker)
    blank: "array[int]" = field(default_factory=lambda: array("b"))  # what each caption `lacks`


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
            columns.blank.append(lacks(caption))
    return columns


def _name(path: Path, row: Row) -> str:
    """The image's path below the table's directory; raises UserError where it is not below."""
    if "://" in row.image:
        what = f"{row.image!r} is an address; download the images first"
        raise broken(path, row.number, what)
    name = posixpath.normpath(row.image)
    if posixpath.isabs(name):
        name = posixpath.relpath(name, path.parent.absolute())
    if name in (".", "..") or name.startswith("../") or "\0" in name:
        what = f"{row.image!r} is not a file below {path.parent}; write paths relative to it"
        raise broken(path, row.number, f"{what}, and link directories of elsewhere into it")
    return name


def _grouped(path: Path, columns: _Columns) -> CaptionColumns:
    ids = np.array(columns.ids, np.int64)
    names = columns.names.packed()
    _check(path, columns, ids, names)
    rows = np.array(columns.rows, np.int64)
    usable = np.flatnonzero(np.array(columns.blank, np.int8) == 0)
    image_ids, first, captioned = np.unique(
        ids[rows[usable]], return_index=True, return_inverse=True
    )
    counts = np.bincount(captioned, minlength=len(image_ids))
    return CaptionColumns(
        image_ids=image_ids,
        names=names,
        places=np.array(columns.places, np.int64)[rows[usable][first]],
        captions=columns.captions.packed(),
        order=usable[np.argsort(captioned, kind="stable")],
        ends=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def _check(path: Path, columns: _Columns, ids: npt.NDArray[np.int64], names: PackedStrings) -> None:
    """Raise UserError where an image has two ids or an id two images."""
    places, path_ids = np.array(columns.places, np.int64), np.array(columns.path_ids, np.int64)

    def where(row: int) -> str:
        return place(path, columns.numbers[row])

    order = np.argsort(ids, kind="stable")
    same = (np.diff(ids[order]) == 0) & (np.diff(places[order]) != 0)
    for i in np.flatnonzero(same).tolist():
        one, other = int(order[i]), int(order[i + 1])
        first, second = names[int(places[one])], names[int(places[other])]
        if first != second:
            raise UserError(
                f"{path}: the image id {ids[one]} is that of {first!r} ({where(one)}) and of"
                f" {second!r} ({where(other)}); give each image its own"
            )
    order = np.argsort(path_ids, kind="stable")
    same = (np.diff(path_ids[order]) == 0) & (np.diff(ids[order]) != 0)
    for i in np.flatnonzero(same)[:1].tolist():
        one, other = int(order[i]), int(order[i + 1])
        raise UserError(
            f"{path}: {names[int(places[one])]!r} has the image id {ids[one]} ({where(one)}) and"
            f" {ids[other]} ({where(other)}); give an image one id"
        )


def _findings(path: Path, columns: _Columns, table: CaptionColumns) -> tuple[str, ...]:
    numbers, ids = np.array(columns.numbers, np.int64), np.array(columns.ids, np.int64)
    rows, lacking = np.array(columns.rows, np.int64), np.array(columns.blank, np.int8)
    bare, first = np.unique(ids, return_index=True)
    first = np.sort(first[~np.isin(bare, table.image_ids)])
    found = {
        "images have no caption": first,
        "captions are blank": rows[lacking == BLANK],
        "captions are null": rows[lacking == NULL],
    }
    return tuple(
        finding(what, [place(path, number) for number in numbers[rows].tolist()])
        for what, rows in found.items()
        if len(rows)
    )

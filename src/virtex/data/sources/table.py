"""Captions in a table: `train.csv` and `val.csv`, or `.tsv`, `.jsonl`, `.parquet`.

A row has the path of an image below the table's directory, or another one that the layout names,
and a caption of it. The rows of an image are one record; records are in order of their image ids. A
table may come from anybody, so it cannot name files elsewhere; a link in the directory can lead to
them.
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
from virtex.data.shared_strings import PackedStrings, StringPacker, shared
from virtex.data.sources.drawn_split import Groups
from virtex.data.sources.image_list import (
    BLANK,
    NULL,
    SEVERAL,
    CaptionedImages,
    check_left_out,
    defect,
)
from virtex.data.sources.table_file import SplitRows, find_table
from virtex.data.sources.table_layout import TableLayout
from virtex.data.sources.table_rows import read_rows, row_error, row_name
from virtex.errors import UserError, report_lines


class TableCaptions(CaptionedImages):
    """The records of one split, in shared memory.

    `report` has a line for each column that was guessed, for rows of other splits, and for each
    kind of item that was left out: images without a caption, blank and null captions. `groups` is
    None unless the layout names their column.
    """

    groups: Groups | None = None

    def __init__(
        self,
        root: str,
        split: str | None,
        on_bad_image: OnBadImage = "error",
        layout: TableLayout | None = None,
    ) -> None:
        """Read `root`/`split`.csv or its like; `split` is "train" or "val".

        If the `layout` names a column of splits, read its rows from the one table in `root`. `root`
        may also be the table itself, of which all rows are read if `split` is None.

        Raises UserError if there is not exactly one table, or if it is malformed or has no record;
        under `on_bad_image` "error" also if anything would be left out.
        """
        layout = layout or TableLayout()
        path = find_table(Path(root), split, layout)
        columns = _read(path, layout)
        names = columns.names.packed()
        _check_ids(path, columns, names)
        selected = np.ones(len(columns.ids), bool)
        if layout.split is not None and split is not None:
            selected = columns.splits.select(path, layout.split, split, columns.ids)
        ids, rows = np.array(columns.ids, np.int64), np.array(columns.rows, np.int64)
        usable = np.flatnonzero((np.array(columns.defects, np.int8) == 0) & selected[rows])
        used = rows[usable]
        left_out = _left_out(path, columns, ids[used], selected)
        self.report = (*columns.notes, *columns.splits.report, *left_out)
        check_left_out(path, left_out, on_bad_image)
        if not len(usable):
            raise UserError(f"{path} holds no image with a caption")
        super().__init__(
            path.parent / layout.image_directory,
            names,
            columns.captions.packed(),
            usable=usable,
            image_ids=ids[used],
            places=np.array(columns.places, np.int64)[used],
        )
        if layout.group is not None:
            self.groups = _groups(path, layout.group, columns, self.image_ids)


@dataclass
class _Columns:
    """The content of the file, column by column, in its order."""

    ids: "array[int]" = field(default_factory=lambda: array("q"))  # of each row, as the next five
    path_ids: "array[int]" = field(default_factory=lambda: array("q"))
    places: "array[int]" = field(default_factory=lambda: array("q"))  # in `names`
    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    splits: SplitRows = field(default_factory=SplitRows)
    groups: "array[int]" = field(default_factory=lambda: array("q"))  # in `group_names`
    group_names: dict[str, int] = field(default_factory=dict)
    names: StringPacker = field(default_factory=StringPacker)
    rows: "array[int]" = field(default_factory=lambda: array("q"))  # of each caption
    captions: StringPacker = field(default_factory=StringPacker)
    defects: "array[int]" = field(default_factory=lambda: array("b"))  # of each caption
    notes: list[str] = field(default_factory=list)


def _read(path: Path, layout: TableLayout) -> _Columns:
    columns = _Columns()
    former: tuple[str, ...] = ()
    id_of_path = several = 0
    for row in read_rows(path, layout, columns.notes):
        images = (row.image, *row.others)
        if images != former:  # rows of an image mostly follow each other
            name = SEVERAL.join(_name(path, row.number, image, layout) for image in images)
            columns.names.append(name)
            former, id_of_path = images, hashed_id(name)
        several += bool(row.others)
        columns.path_ids.append(id_of_path)
        columns.ids.append(id_of_path if row.image_id is None else row.image_id)
        columns.places.append(len(columns.names) - 1)
        columns.numbers.append(row.number)
        if layout.split is not None:
            columns.splits.append(row.split)
        if layout.group is not None:
            group = (
                columns.group_names.setdefault(row.group, len(columns.group_names))
                if row.group
                else -1
            )
            columns.groups.append(group)
        for caption in row.captions:
            columns.rows.append(len(columns.ids) - 1)
            columns.captions.append(caption or "")
            columns.defects.append(defect(caption))
    if several:
        columns.notes.append(
            f"{several:,} rows have several images, of which one is drawn at a time"
        )
    return columns


def _groups(path: Path, column: str, columns: _Columns, image_ids: npt.NDArray[np.int64]) -> Groups:
    """The groups of the images; raises UserError for an image with two."""
    ids, groups = np.array(columns.ids, np.int64), np.array(columns.groups, np.int64)
    names = list(columns.group_names)
    for one, other in _conflicts(ids, groups):
        shown = [names[groups[row]] if groups[row] >= 0 else "none" for row in (one, other)]
        places = [row_name(path, columns.numbers[row]) for row in (one, other)]
        raise UserError(
            f"{path}: an image has two groups in the column {column!r}: {shown[0]} ({places[0]})"
            f" and {shown[1]} ({places[1]}); give an image one group"
        )
    packed = StringPacker()
    for name in names:
        packed.append(name)
    order = np.argsort(ids, kind="stable")
    first = order[np.searchsorted(ids[order], image_ids)]
    return Groups(column, packed.packed(), shared(groups[first]))


def _name(path: Path, number: int, image: str, layout: TableLayout) -> str:
    """The image's path below the directory of images; raises UserError where it is not below."""
    directory = path.parent / layout.image_directory
    if "://" in image:
        what = f"{image!r} is an address; download the images first"
        raise row_error(path, number, what)
    name = posixpath.normpath(image)
    if posixpath.isabs(name):
        name = posixpath.relpath(name, posixpath.normpath(directory.absolute()))
    if name in (".", "..") or name.startswith("../") or "\0" in name:
        what = f"{image!r} is not a file below {directory}; write paths relative to it"
        remedy = "link directories of elsewhere into it, or set DATA.IMAGE_DIRECTORY"
        raise row_error(path, number, f"{what}, {remedy} (--image-directory)")
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


def _left_out(
    path: Path,
    columns: _Columns,
    captioned: npt.NDArray[np.int64],
    selected: npt.NDArray[np.bool_],
) -> tuple[str, ...]:
    """A line for each kind of item among the `selected` rows (R,) that cannot be used.

    `captioned` are the ids of the images that have a usable caption.
    """
    numbers = np.array(columns.numbers, np.int64)
    rows, defects = np.array(columns.rows, np.int64), np.array(columns.defects, np.int8)
    chosen = np.flatnonzero(selected)
    ids, first = np.unique(np.array(columns.ids, np.int64)[chosen], return_index=True)
    of_captions = selected[rows]
    found = {
        "images have no caption": np.sort(chosen[first[~np.isin(ids, captioned)]]),
        "captions are blank": rows[of_captions & (defects == BLANK)],
        "captions are null": rows[of_captions & (defects == NULL)],
    }
    return report_lines(
        {
            what: [row_name(path, number) for number in numbers[rows].tolist()]
            for what, rows in found.items()
        }
    )

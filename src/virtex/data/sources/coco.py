"""COCO captions: `annotations/captions_{split}2017.json` and the images of `{split}2017/`.

The annotations alone determine the records; no directory is listed. Records are in order of their
image ids, whatever the order in the file.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.images import OnBadImage
from virtex.data.shared_strings import StringPacker
from virtex.data.sources.image_list import (
    BLANK,
    NULL,
    CaptionedImages,
    check_left_out,
    defect,
)
from virtex.data.sources.json_stream import integer, invalid_item, list_items, text
from virtex.errors import UserError, report_lines


class CocoCaptions(CaptionedImages):
    """The records of one split, in shared memory: 70 bytes a caption for a process and its workers.

    `report` has a line for each kind of item that was left out: images without a caption, captions
    without an image, blank and null captions.
    """

    def __init__(self, root: Path, split: str, on_bad_image: OnBadImage = "error") -> None:
        """Read the annotations under `root`; `split` is "train" or "val".

        Raises UserError if they are missing or malformed, give an id to two images or hold no
        record; under `on_bad_image` "error" also if anything would be left out.
        """
        path = annotations_file(root, f"captions_{split}2017.json")
        columns = _read(path)
        order, listed = sorted_ids(path, columns.image_ids)
        wanted = np.array(columns.caption_image_ids, np.int64)
        defects = np.array(columns.defects, np.int8)
        known = np.isin(wanted, listed)
        usable = np.flatnonzero(known & (defects == 0))
        image_ids = wanted[usable]
        self.report = report_lines(
            {
                "images have no caption": listed[~np.isin(listed, image_ids)],
                "captions are of images that are not listed": wanted[~known],
                "captions are blank": wanted[known & (defects == BLANK)],
                "captions are null": wanted[known & (defects == NULL)],
            },
            "image ids",
        )
        check_left_out(path, self.report, on_bad_image)
        if not len(usable):
            lists = ", ".join(f"{key!r} ({count})" for key, count in columns.lists.most_common(8))
            raise UserError(
                f"{path} holds no image with a caption: its lists are {lists or 'none with items'};"
                " expected 'images' with 'id' and 'file_name', and 'annotations' with 'image_id'"
                " and 'caption'" + "".join(f"; {line}" for line in self.report)
            )
        super().__init__(
            root / f"{split}2017",
            columns.names.packed(),
            columns.captions.packed(),
            usable=usable,
            image_ids=image_ids,
            places=order[np.searchsorted(listed, image_ids)],
        )


@dataclass
class _Columns:
    """The file's two lists, column by column, in the file's order."""

    lists: Counter[str] = field(default_factory=Counter)  # the number of items in each list
    image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    names: StringPacker = field(default_factory=StringPacker)
    caption_image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    captions: StringPacker = field(default_factory=StringPacker)
    defects: "array[int]" = field(default_factory=lambda: array("b"))  # of each caption


def annotations_file(root: Path, name: str) -> Path:
    """The path of `root`/annotations/`name`; raises UserError if it does not exist."""
    path = root / "annotations" / name
    if not path.is_file():
        raise UserError(
            f"there are no annotations {path}: DATA.ROOT ({root}) must be a directory with"
            " annotations/, train2017/ and val2017/ as COCO publishes them"
        )
    return path


def _read(path: Path) -> _Columns:
    columns = _Columns()
    for key, item in list_items(path):
        columns.lists[key[:50]] += 1
        if key == "images":
            columns.image_ids.append(integer(path, key, item, "id"))
            columns.names.append(file_name(path, key, item))
        elif key == "annotations":
            is_null = isinstance(item, dict) and item.get("caption", "") is None
            caption = None if is_null else text(path, key, item, "caption")
            columns.caption_image_ids.append(integer(path, key, item, "image_id"))
            columns.captions.append(caption or "")
            columns.defects.append(defect(caption))
    return columns


def file_name(path: Path, key: str, item: object) -> str:
    """The `file_name` of an item, a path inside the directory of images; raises UserError."""
    name = text(path, key, item, "file_name")
    outside = {"", ".", ".."} & {*name.split("/")}
    if outside or "\\" in name or "\0" in name:
        needed = "'file_name', a path inside the directory of images such as '000000000042.jpg'"
        raise invalid_item(path, key, item, needed)
    return name


def sorted_ids(
    path: Path, image_ids: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The positions that sort the ids, and the ids sorted; raises UserError for a repeated id."""
    ids = np.array(image_ids, np.int64)
    ascending, order, counts = np.unique(ids, return_index=True, return_counts=True)
    repeated = ascending[counts > 1]
    if len(repeated):
        (line,) = report_lines({"image ids are given to several images": repeated}, "image ids")
        raise UserError(f"{path}: {line}")
    return order, ascending

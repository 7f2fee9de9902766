"""COCO captions: `annotations/captions_{split}2017.json` and the images of `{split}2017/`.

Only the annotations say what there is; a directory is never listed. Records are in order of their
image ids, whatever the order in the file.
"""

import reprlib
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.images import OnBadImage
from virtex.data.records import is_int64
from virtex.data.shared_strings import StringPacker
from virtex.data.sources.image_list import BLANK, NULL, CaptionColumns, CaptionedImages, lacks
from virtex.data.sources.json_stream import list_items
from virtex.errors import UserError, first_few


class CocoCaptions(CaptionedImages):
    """The records of one split, in shared memory: 70 bytes a caption for a process and its workers.

    `report` says, a line each, what was left out: images without a caption, captions without an
    image, blank and null captions.
    """

    def __init__(self, root: Path, split: str, on_bad_image: OnBadImage = "error") -> None:
        """Read the annotations under `root`; `split` is "train" or "val".

        Raises UserError when they are missing or malformed, hold two images of one id or no record;
        under `on_bad_image` "error" also when anything would be left out.
        """
        path = annotations_file(root, f"captions_{split}2017.json")
        columns = _read(path)
        pairs = _paired(path, columns)
        self.report = pairs.report
        if self.report and on_bad_image == "error":
            raise UserError(
                f"{path}: {'; '.join(self.report)}. Correct the file, or set DATA.ON_BAD_IMAGE to"
                " skip to train without these"
            )
        if not len(pairs.images):
            lists = ", ".join(f"{key!r} ({count})" for key, count in columns.lists.most_common(8))
            raise UserError(
                f"{path} holds no image with a caption: its lists are {lists or 'none with items'};"
                " expected 'images' with 'id' and 'file_name', and 'annotations' with 'image_id'"
                " and 'caption'" + "".join(f"; {line}" for line in self.report)
            )
        image_ids = np.array(columns.image_ids, np.int64)[pairs.images]
        super().__init__(
            root / f"{split}2017",
            CaptionColumns(
                image_ids=image_ids,
                names=columns.names.packed(),
                places=pairs.images,
                captions=columns.captions.packed(),
                order=pairs.captions,
                ends=pairs.ends,
            ),
        )


@dataclass
class _Columns:
    """The file's two lists, column by column, in the file's order."""

    lists: Counter[str] = field(default_factory=Counter)  # items of each, whatever its name
    image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    names: StringPacker = field(default_factory=StringPacker)
    caption_image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    captions: StringPacker = field(default_factory=StringPacker)
    blank: "array[int]" = field(default_factory=lambda: array("b"))  # what each caption `lacks`


@dataclass(frozen=True)
class _Pairs:
    """Which image has which captions, as positions in the columns."""

    images: npt.NDArray[np.int64]  # (N,), ascending by image id
    captions: npt.NDArray[np.int64]  # those of the first image, of the second, …, in file order
    ends: npt.NDArray[np.int64]  # (N + 1,), a 0 and the end of each image's part of `captions`
    report: tuple[str, ...]


def annotations_file(root: Path, name: str) -> Path:
    """The path of `root`/annotations/`name`; raises UserError where there is no such file."""
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
            columns.blank.append(lacks(caption))
    return columns


def integer(path: Path, key: str, item: object, name: str) -> int:
    """The whole number `name` of an item of the file's list `key`; else raises UserError."""
    value = item.get(name) if isinstance(item, dict) else None
    if not is_int64(value):
        raise UserError(_unfit(path, key, item, f"'{name}', a whole number of 64 bits"))
    return value


def text(path: Path, key: str, item: object, name: str) -> str:
    """The string `name` of an item of the file's list `key`; else raises UserError."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise UserError(_unfit(path, key, item, f"'{name}', a string"))
    return value


def file_name(path: Path, key: str, item: object) -> str:
    """The `file_name` of an item, a path inside the images' directory; else raises UserError."""
    name = text(path, key, item, "file_name")
    outside = {"", ".", ".."} & {*name.split("/")}
    if outside or "\\" in name or "\0" in name:
        needed = "'file_name', a path inside the directory of images such as '000000000042.jpg'"
        raise UserError(_unfit(path, key, item, needed))
    return name


def _unfit(path: Path, key: str, item: object, needed: str) -> str:
    # reprlib: an item may be large, or nested as deeply as can just be read.
    shown = reprlib.repr(item)
    return f"{path}: every item of '{key}' needs {needed}; one is {shown}"


def _paired(path: Path, columns: _Columns) -> _Pairs:
    order, ascending = sorted_ids(path, columns.image_ids)
    wanted = np.array(columns.caption_image_ids, np.int64)
    place = np.searchsorted(ascending, wanted)
    known = np.isin(wanted, ascending)
    lacking = np.array(columns.blank, np.int8)
    usable = np.flatnonzero(known & (lacking == 0))
    counts = np.bincount(place[usable], minlength=len(ascending))
    findings = {
        "images have no caption": ascending[counts == 0],
        "captions are of images that are not listed": wanted[~known],
        "captions are blank": wanted[known & (lacking == BLANK)],
        "captions are null": wanted[known & (lacking == NULL)],
    }
    return _Pairs(
        images=order[counts > 0],
        captions=usable[np.argsort(place[usable], kind="stable")],
        ends=np.concatenate([[0], np.cumsum(counts[counts > 0])]),
        report=tuple(line(what, ids) for what, ids in findings.items() if len(ids)),
    )


def sorted_ids(
    path: Path, image_ids: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The order that sorts the ids, and the ids sorted; raises UserError where one stands twice."""
    given = np.array(image_ids, np.int64)
    order = np.argsort(given, kind="stable")
    ascending = given[order]
    repeated = np.unique(ascending[1:][ascending[1:] == ascending[:-1]])
    if len(repeated):
        raise UserError(f"{path}: {line('image ids are given to several images', repeated)}")
    return order, ascending


def line(what: str, image_ids: npt.NDArray[np.int64]) -> str:
    """A count and the first ids: `3 captions are blank (image ids 7, 9, 31)`."""
    return f"{len(image_ids)} {what} (image ids {first_few(image_ids.tolist())})"

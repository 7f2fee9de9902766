"""COCO's objects: the categories in each image, from `annotations/instances_{split}2017.json`.

A category's index is its place in the file's list of categories, from 1. Records are in order of
their image ids; an image without objects is a record without categories.
"""

from array import array
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.contents import content_rows
from virtex.data.images import OnBadImage
from virtex.data.records import Record
from virtex.data.shared_strings import StringPacker, hashed, shared
from virtex.data.sources.coco import annotations_file, file_name, sorted_ids
from virtex.data.sources.image_list import ImageFiles, check_left_out
from virtex.data.sources.json_stream import integer, list_items, text
from virtex.errors import UserError, report_lines


class CocoCategories(ImageFiles):
    """The records of one split, in shared memory.

    `categories` are the names, in the file's order. `report` has a line for the images without
    objects, and for each kind of item that was left out: objects of unknown images or categories.
    """

    def __init__(self, root: Path, split: str, on_bad_image: OnBadImage = "error") -> None:
        """Read the annotations under `root`; `split` is "train" or "val".

        Raises UserError if they are missing or malformed, give an id to two images, or hold no
        image or no category; under `on_bad_image` "error" also if an object would be left out.
        """
        path = annotations_file(root, f"instances_{split}2017.json")
        columns = _read(path)
        order, image_ids = sorted_ids(path, columns.image_ids)
        if not len(image_ids) or not columns.category_ids:
            missing = "categories" if len(image_ids) else "images"
            raise UserError(f"{path} lists no {missing}")
        self.categories = tuple(columns.category_names)
        objects, left_out = _known_objects(columns, image_ids)
        check_left_out(path, left_out, on_bad_image)
        places, labels = np.unique(objects, axis=1)
        counts = np.bincount(places, minlength=len(image_ids))
        without = "images have no object: they contribute to batch norm but not to the loss"
        self.report = left_out + report_lines({without: image_ids[counts == 0]}, "image ids")
        super().__init__(root / f"{split}2017", columns.names.packed(), order, image_ids)
        self._labels = shared(labels)
        self._ends = shared(np.concatenate([[0], np.cumsum(counts)]))

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._ends.numpy()[index : index + 2]
        return Record(
            image_id=int(self._image_ids.numpy()[index]),
            image=self.path(index),
            categories=tuple(self._labels.numpy()[start:end].tolist()),
        )

    @property
    def fingerprint(self) -> str:
        """A hash of image ids, the categories in each and their names."""
        names = StringPacker()
        for name in self.categories:
            names.append(name)
        return hashed(self._image_ids, self._labels, self._ends, *names.packed().tensors)

    @property
    def caption_count(self) -> None:
        """None: objects have no captions."""

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (N,), without the categories' names."""
        labels, ends = self._labels.tolist(), pairwise(self._ends.tolist())
        return content_rows(self.image_ids.tolist(), (((), labels[a:b]) for a, b in ends))


@dataclass
class _Columns:
    """The file's lists, column by column, in the file's order."""

    image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    names: StringPacker = field(default_factory=StringPacker)
    object_image_ids: "array[int]" = field(default_factory=lambda: array("q"))
    object_category_ids: "array[int]" = field(default_factory=lambda: array("q"))
    category_ids: list[int] = field(default_factory=list)
    category_names: list[str] = field(default_factory=list)


def _read(path: Path) -> _Columns:
    columns = _Columns()
    for key, item in list_items(path):
        if key == "images":
            columns.image_ids.append(integer(path, key, item, "id"))
            columns.names.append(file_name(path, key, item))
        elif key == "annotations":
            columns.object_image_ids.append(integer(path, key, item, "image_id"))
            columns.object_category_ids.append(integer(path, key, item, "category_id"))
        elif key == "categories":
            columns.category_ids.append(integer(path, key, item, "id"))
            columns.category_names.append(text(path, key, item, "name"))
    if len(set(columns.category_ids)) < len(columns.category_ids):
        raise UserError(f"{path} gives one category id to several categories")
    return columns


def _known_objects(
    columns: _Columns, image_ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """(2, M): each object's place in `image_ids` (N,), ascending, and its category's index.

    Also returns what the file lists of unknown images and categories, for the report.
    """
    images = np.array(columns.object_image_ids, np.int64)
    categories = np.array(columns.object_category_ids, np.int64)
    category_ids, by_id = np.unique(np.array(columns.category_ids, np.int64), return_index=True)
    known_image, known_category = np.isin(images, image_ids), np.isin(categories, category_ids)
    known = known_image & known_category
    places = np.searchsorted(image_ids, images[known])
    indices = 1 + by_id[np.searchsorted(category_ids, categories[known])]
    left_out = report_lines(
        {
            "objects are of images that are not listed": images[~known_image],
            "objects are of categories that are not listed": images[known_image & ~known_category],
        },
        "image ids",
    )
    return np.stack((places, indices)), left_out

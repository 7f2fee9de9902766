"""COCO's objects: which categories are in which image, of `annotations/instances_{split}2017.json`.

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
from virtex.data.sources.coco import (
    annotations_file,
    file_name,
    integer,
    line,
    sorted_ids,
    text,
)
from virtex.data.sources.image_list import ImageFiles
from virtex.data.sources.json_stream import list_items
from virtex.errors import UserError


class CocoCategories(ImageFiles):
    """The records of one split, in shared memory.

    `categories` are the names, in the file's order. `report` says, a line each, how many images
    have no object, and what was left out: objects of unknown images or categories.
    """

    def __init__(self, root: Path, split: str, on_bad_image: OnBadImage = "error") -> None:
        """Read the annotations under `root`; `split` is "train" or "val".

        Raises UserError when they are missing or malformed, hold two images of one id, no image or
        no category; under `on_bad_image` "error" also when an object would be left out.
        """
        path = annotations_file(root, f"instances_{split}2017.json")
        columns = _read(path)
        order, ascending = sorted_ids(path, columns.image_ids)
        if not len(ascending) or not columns.category_ids:
            missing = "categories" if len(ascending) else "images"
            raise UserError(f"{path} lists no {missing}")
        self.categories = tuple(columns.category_names)
        labels = _labels(path, columns, ascending)
        if labels.left_out and on_bad_image == "error":
            raise UserError(
                f"{path}: {'; '.join(labels.left_out)}. Correct the file, or set DATA.ON_BAD_IMAGE"
                " to skip to train without these"
            )
        empty = ascending[np.diff(labels.ends) == 0]
        self.report = labels.left_out
        if len(empty):
            self.report += (
                line("images have no object: they are in no loss, only in batch norm", empty),
            )
        super().__init__(root / f"{split}2017", columns.names.packed(), order, ascending)
        self._labels, self._ends = shared(labels.indices), shared(labels.ends)

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
        """Of each record, (N,); the categories' names are the vocabulary's matter."""
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


@dataclass(frozen=True)
class _Labels:
    """The distinct indices of the first image, of the second, …, each ascending."""

    indices: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]  # (N + 1,), a 0 and the end of each image's part of `indices`
    left_out: tuple[str, ...]


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


def _labels(path: Path, columns: _Columns, image_ids: npt.NDArray[np.int64]) -> _Labels:
    """The labels of the images with these ids, (N,) ascending."""
    images = np.array(columns.object_image_ids, np.int64)
    categories = np.array(columns.object_category_ids, np.int64)
    by_id, category_ids = sorted_ids(path, columns.category_ids)
    known_image, known_category = np.isin(images, image_ids), np.isin(categories, category_ids)
    usable = known_image & known_category
    places = np.searchsorted(image_ids, images[usable])
    indices = 1 + by_id[np.searchsorted(category_ids, categories[usable])]
    pairs = np.unique(np.stack((places, indices)), axis=1)
    findings = {
        "objects are of images that are not listed": images[~known_image],
        "objects are of categories that are not listed": images[known_image & ~known_category],
    }
    counts = np.bincount(pairs[0], minlength=len(image_ids))
    return _Labels(
        indices=pairs[1],
        ends=np.concatenate([[0], np.cumsum(counts)]),
        left_out=tuple(line(what, ids) for what, ids in findings.items() if len(ids)),
    )

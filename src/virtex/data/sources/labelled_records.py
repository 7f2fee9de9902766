"""The records of labelled images, for training a classifier on them.

Their ids are hashes of the paths below the data's root, so that they survive a move of the data.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from virtex.data.contents import content_rows
from virtex.data.records import Record, hashed_id
from virtex.data.shared_strings import StringPacker, hashed, shared
from virtex.data.sources.image_list import ImageFiles
from virtex.data.sources.labelled import LabelledData
from virtex.errors import UserError


class LabelledRecords(ImageFiles):
    """The records of one split, in shared memory, in order of their ids.

    `report` has lines about the data for the log.
    """

    def __init__(
        self,
        data: LabelledData,
        split: Literal["train", "test"],
        *,
        report: Sequence[str] = (),
    ) -> None:
        """Raises UserError for the name of an image that is not UTF-8."""
        images = data.train if split == "train" else data.test
        names = [_name(path, data.directory) for path in images.paths]
        ids = np.array(_ids(names), np.int64)
        order = np.argsort(ids, kind="stable")
        packer = StringPacker()
        for name in names:
            packer.append(name)
        super().__init__(data.directory, packer.packed(), order, ids[order])
        self._labels = shared(images.labels[order])
        self._classes = data.classes
        self.report = tuple(report)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Record(
            image_id=int(self._image_ids.numpy()[index]),
            image=self.path(index),
            labels=tuple(np.atleast_1d(self._labels.numpy()[index]).tolist()),
        )

    @property
    def fingerprint(self) -> str:
        """A hash of image ids, labels and the names of the classes."""
        names = StringPacker()
        for name in self._classes:
            names.append(name)
        return hashed(self._image_ids, self._labels, *names.packed().tensors)

    @property
    def caption_count(self) -> None:
        """None: labelled images have no captions."""

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (N,), without the names of the classes."""
        labels = self._labels.numpy().reshape(len(self), -1).tolist()
        return content_rows(self.image_ids.tolist(), (((), of_image) for of_image in labels))


def _name(path: Path, directory: Path) -> str:
    relative = path.relative_to(directory) if path.is_relative_to(directory) else path
    name = relative.as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the name of {str(path)!a} is not UTF-8; rename it") from error
    return name


def _ids(names: Sequence[str]) -> list[int]:
    """An id for each image; one that is listed again gets an id of its own each time."""
    ids, seen = [], Counter[str]()
    for name in names:
        ids.append(hashed_id(name, seen[name]) if seen[name] else hashed_id(name))
        seen[name] += 1
    return ids

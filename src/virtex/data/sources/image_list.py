"""The image files of a split with their captions, in shared memory: what all readers of files give.

Where nobody gave an image an id it is a hash of its path below the data's root: the same on every
machine and whatever else is there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.contents import content_rows
from virtex.data.records import Record, missing_files
from virtex.data.shared_strings import PackedStrings, hashed, shared
from virtex.errors import first_few

BLANK, NULL = 1, 2
"""What a caption that cannot be used lacks: text, or itself."""


@dataclass(frozen=True)
class CaptionColumns:
    """Which image has which captions, N images."""

    image_ids: npt.NDArray[np.int64]  # (N,), ascending, all different
    names: PackedStrings  # paths below the root
    places: npt.NDArray[np.int64]  # (N,), of each image's path in `names`
    captions: PackedStrings
    order: npt.NDArray[np.int64]  # places in `captions` of the first image's, the second's, …
    ends: npt.NDArray[np.int64]  # (N + 1,), a 0 and the end of each image's part of `order`


class ImageFiles:
    """The image files of one split, in order of their ids, in shared memory."""

    def __init__(
        self,
        directory: Path,
        names: PackedStrings,
        places: npt.NDArray[np.int64],
        image_ids: npt.NDArray[np.int64],
    ) -> None:
        """Image i has the name at `places[i]` in `names`, and the id `image_ids[i]`."""
        self._directory = directory
        self._names = names
        self._places, self._image_ids = shared(places), shared(image_ids)

    def __len__(self) -> int:
        return len(self._image_ids)

    def path(self, index: int) -> Path:
        """The image file of record `index` (0 … N-1)."""
        return self._directory / self._names[int(self._places.numpy()[index])]

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` that are not there or empty."""
        return missing_files(map(self.path, positions))

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,), ascending."""
        ids: npt.NDArray[np.int64] = self._image_ids.numpy()
        return ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """One for all."""
        return np.array([len(self)])


class CaptionedImages(ImageFiles):
    """The records of `columns`."""

    def __init__(self, directory: Path, columns: CaptionColumns) -> None:
        super().__init__(directory, columns.names, columns.places, columns.image_ids)
        self._captions = columns.captions
        self._order, self._ends = shared(columns.order), shared(columns.ends)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._ends.numpy()[index : index + 2]
        return Record(
            image_id=int(self._image_ids.numpy()[index]),
            image=self.path(index),
            captions=tuple(self._captions[i] for i in self._order.numpy()[start:end].tolist()),
        )

    @property
    def fingerprint(self) -> str:
        """A hash of image ids and captions."""
        return hashed(self._image_ids, self._order, self._ends, *self._captions.tensors)

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """Of each record, (N,)."""
        captions = list(self._captions)
        ordered = [captions[place] for place in self._order.tolist()]
        ends = pairwise(self._ends.tolist())
        return content_rows(
            self.image_ids.tolist(), ((ordered[start:end], None) for start, end in ends)
        )

    @property
    def caption_count(self) -> int:
        """Captions of all records."""
        return len(self._order)


def lacks(caption: str | None) -> int:
    """`BLANK`, `NULL`, or 0 for a caption with text."""
    if caption is None:
        return NULL
    return 0 if caption.strip() else BLANK


def finding(what: str, where: Sequence[object]) -> str:
    """A count and the first places: `3 captions are blank (line 7, line 9, line 31)`."""
    return f"{len(where)} {what} ({first_few(where)})"

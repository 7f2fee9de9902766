"""Parts of a data set, for data-efficiency runs."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.packed import shared
from virtex.data.records import Record, Records
from virtex.errors import UserError


class Selection:
    """The records at some positions, in the order of the positions."""

    def __init__(self, records: Records, positions: npt.NDArray[np.int64]) -> None:
        """`positions` is (n,), each 0 … N-1."""
        self._records = records
        self._positions = shared(positions.astype(np.int64))

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._records[int(self._positions.numpy()[index])]

    def path(self, index: int) -> Path:
        """The image file of record `index` (0 … n-1)."""
        return self._records.path(int(self._positions.numpy()[index]))

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (n,)."""
        ids: npt.NDArray[np.int64] = self._records.image_ids[self._positions.numpy()]
        return ids


def subset(records: Records, percentage: float, seed: int) -> Records:
    """`percentage` (0 < p ≤ 100) percent of the images, at least one; all of them for 100.

    Each image has a rank, the hash of `seed` and its id, and the lowest ranks are taken. So a
    smaller subset lies inside every larger one, and neither the file system nor the order of the
    annotations nor NumPy's version decides who is in. The order of `records` is kept.

    Raises UserError when `percentage` is out of its range.
    """
    if not 0 < percentage <= 100:
        raise UserError(f"{percentage} percent of the images: it must be above 0 and at most 100")
    if percentage == 100:
        return records
    image_ids = records.image_ids
    ranks = np.array([_rank(seed, image_id) for image_id in image_ids.tolist()], np.uint64)
    count = max(1, int(len(image_ids) * percentage / 100))
    # Equal hashes are as good as impossible; the id decides them all the same.
    return Selection(records, np.sort(np.lexsort((image_ids, ranks))[:count]))


def _rank(seed: int, image_id: int) -> int:
    digest = hashlib.blake2b(f"{seed} {image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")

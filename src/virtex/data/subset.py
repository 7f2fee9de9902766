"""Parts of a data set, for data-efficiency runs."""

import hashlib
import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.records import Record, Records
from virtex.data.shared_strings import shared
from virtex.errors import UserError


class Selection:
    """The records at some positions, in the order of the positions; holds 8 bytes for each."""

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

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` (0 … n-1) that are not there or empty."""
        chosen = self._positions.numpy()
        return self._records.missing(int(chosen[position]) for position in positions)

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (n,)."""
        ids: npt.NDArray[np.int64] = self._records.image_ids[self._positions.numpy()]
        return ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """How many of the records lie in each shard that has any; positions must ascend."""
        return np.unique(self._shard_of_each(), return_counts=True)[1]

    @property
    def shards(self) -> npt.NDArray[np.int64]:
        """The numbers of the shards that `shard_sizes` tells of, ascending."""
        return np.unique(self._shard_of_each())

    @property
    def fingerprint(self) -> str:
        """A hash of the records and the positions."""
        digest = hashlib.sha256(self._records.fingerprint.encode())
        digest.update(self._positions.numpy().data)
        return digest.hexdigest()

    def _shard_of_each(self) -> npt.NDArray[np.int64]:
        ends = np.cumsum(self._records.shard_sizes)
        return np.searchsorted(ends, self._positions.numpy(), side="right")


def subset(records: Records, percentage: float, seed: int) -> Records:
    """`percentage` (0 < p ≤ 100) percent of the images, rounded down; all of them for 100.

    Each image has a rank, the hash of `seed` and its id, and the lowest ranks are taken. So a
    smaller subset lies inside every larger one, and neither the file system nor the order of the
    annotations nor NumPy's version decides who is in. The order of `records` is kept.

    Raises UserError when `percentage` is out of its range or gives no image.
    """
    if not 0 < percentage <= 100:
        raise UserError(
            f"DATA.USE_PERCENTAGE is {percentage}; expected a number above 0 and at most 100"
        )
    if percentage == 100:
        return records
    image_ids = records.image_ids
    share = _exact(percentage) * len(image_ids) / 100
    count = math.floor(share)
    if count == 0:
        raise UserError(
            f"DATA.USE_PERCENTAGE is {percentage}, which of {len(image_ids)} training images is "
            f"{float(share):.2g}, less than one; the smallest percentage that gives an image is "
            f"{_smallest_percentage(len(image_ids))}"
        )
    ranks = np.array([_rank(seed, image_id) for image_id in image_ids.tolist()], np.uint64)
    # Equal hashes are as good as impossible; the id decides them all the same.
    return Selection(records, np.sort(np.lexsort((image_ids, ranks))[:count]))


def _exact(percentage: float) -> Fraction:
    """The number as it is written: in binary 32.3 percent of 1000 images are not quite 323."""
    return Fraction(str(percentage))


def _smallest_percentage(images: int) -> Decimal:
    """The least percentage of few digits that gives one of `images` images."""
    return Context(prec=4, rounding=ROUND_CEILING).divide(Decimal(100), Decimal(images))


def _rank(seed: int, image_id: int) -> int:
    digest = hashlib.blake2b(f"{seed} {image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")

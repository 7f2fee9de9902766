"""What a data set gives: records of an image and what is known of it, by position."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from virtex.data.images import ImageSource

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class Record:
    """One image, unread, with its captions as they were written, or its categories' indices.

    A data set of captions gives at least one caption and no category; one of objects no caption,
    and categories from 1, ascending, each once, or none where there is no object.
    """

    image_id: int
    image: ImageSource
    captions: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()


def is_int64(value: object) -> TypeGuard[int]:
    """Whether a value from JSON is a whole number of 64 bits, as the ids of images are."""
    return type(value) is int and -(2**63) <= value < 2**63


def hashed_id(*identity: object) -> int:
    """An image id for what has none: 63 bits of a hash, the same on every machine."""
    # What UTF-8 has no place for is replaced as in packed strings.
    text = "\0".join(map(str, identity)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def record_json(image_id: int, captions: Sequence[str], categories: Sequence[int] | None) -> bytes:
    """The JSON that a shard holds of a record, equal for equal records.

    `categories` is None in a data set of captions.
    """
    values: dict[str, object] = {"image_id": image_id, "captions": captions}
    if categories is not None:
        values["categories"] = categories
    return _encode(values).encode()


class Records(Protocol):
    """A sequence of records that costs loader workers no copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def missing(self, positions: Iterable[int], /) -> list[Path]:
        """The image files of the records at `positions` that are not there or empty, found
        without reading any."""
        ...

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,), all different."""
        ...

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """How many records lie together in each shard, in order, (S,); one for all if in files."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of what there is to train on and how it is stored, in hex: equal on machines
        that have the same."""
        ...

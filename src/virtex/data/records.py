"""The records of a data set: an image with its captions, categories or labels, by position."""

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
    """One image, unread, with its captions as they were written, its categories, or its labels.

    `others` are further images of the same captions, of which one image is drawn at a time. In a
    data set of captions a record has at least one caption; in one of objects, the categories
    of its objects from 1, ascending, each once. In one of labelled images, `labels` is the index of
    its class, from 0; or, where an image may have several, 1 (present), -1 (absent) or 0 (unknown)
    for each class.
    """

    image_id: int
    image: ImageSource
    captions: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    others: tuple[ImageSource, ...] = ()


def is_int64(value: object) -> TypeGuard[int]:
    """Whether a value from JSON is an integer of 64 bits, as the ids of images are."""
    return type(value) is int and -(2**63) <= value < 2**63


def hashed_id(*identity: object) -> int:
    """An image id for an image without one: 63 bits of a hash, the same on every machine."""
    # Half a surrogate pair is replaced as in packed strings.
    text = "\0".join(map(str, identity)).encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def record_json(
    image_id: int, captions: Sequence[str], categories: Sequence[int] | None, images: int = 1
) -> bytes:
    """The JSON of a record in a shard, equal for equal records.

    `categories` is None in a data set of captions; `images` is the number of images of the text.
    """
    values: dict[str, object] = {"image_id": image_id, "captions": captions}
    if categories is not None:
        values["categories"] = categories
    if images > 1:
        values["images"] = images
    return _encode(values).encode()


class Records(Protocol):
    """A sequence of records that loader workers share without a copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def missing(self, positions: Iterable[int], /) -> list[Path]:
        """The image files of the records at `positions` that do not exist or are empty, found
        without reading any."""
        ...

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,), all different."""
        ...

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of records in each shard, in order, (S,); all files count as one shard."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of the data and how they are stored, in hex: equal on machines with the same
        data."""
        ...

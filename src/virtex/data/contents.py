"""Digests of both splits in a checkpoint, so that a run notices when it resumes on other data.

They cover image ids and captions or labels, whatever their place and format, but not the
images' pixels. A record counts as the JSON that `virtex pack` writes for it, so that a data set and
the shards packed from it have equal contents; for shards, the indexes suffice.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from virtex.data.records import Records, record_json

_FORMAT = 1
_SPLITS = ("training", "validation")

CONTENT_ROW = np.dtype([("image_id", "<i8"), ("text_bytes", "<u4"), ("text_crc32", "<u4")])
Labels = tuple[Sequence[str], Sequence[int] | None]
"""A record's captions, and its categories in a data set of objects."""


def content_rows(
    image_ids: Sequence[int], labels: Iterable[Labels], images: Iterable[int] | None = None
) -> npt.NDArray[np.void]:
    """A row of `CONTENT_ROW` for each record, (N,), in their order.

    `images` are the numbers of images of the records; None stands for one each.
    """
    rows = []
    counts = repeat(1, len(image_ids)) if images is None else images
    for image_id, (captions, categories), count in zip(image_ids, labels, counts, strict=True):
        text = record_json(image_id, captions, categories, count)
        rows.append((image_id, len(text), zlib.crc32(text)))
    return np.array(rows, CONTENT_ROW)


@dataclass(frozen=True)
class SplitContents:
    """The numbers of images and captions, and SHA-256 of all ids and of all records.

    `captions` is None for shards and for objects.
    """

    images: int
    captions: int | None
    ids: str
    all: str


@dataclass(frozen=True)
class Contents:
    """Both splits; `order` is SHA-256 of all that determines the order of training but the seed."""

    training: SplitContents
    validation: SplitContents
    order: str

    def to_plain(self) -> dict[str, object]:
        """The values for a checkpoint."""
        return {"format": _FORMAT, **asdict(self)}


class WholeSplit(Records, Protocol):
    """The records of a whole split."""

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (N,), in their order."""
        ...

    @property
    def caption_count(self) -> int | None:
        """The number of captions; None for objects, and for shards, which would have to be read."""
        ...


def contents(
    training: WholeSplit, subset: Records, validation: WholeSplit, window: int
) -> Contents:
    """The contents of both whole splits, and the order of the `subset` to train on.

    `window` is the number of samples of shards that are shuffled together.
    """
    rows = training.content_rows
    order = [rows["image_id"] if subset is training else subset.image_ids]
    if len(subset) > window:  # else all shards are shuffled together
        order.append(subset.shard_sizes)
    return Contents(
        training=_split(training, rows),
        validation=_split(validation, validation.content_rows),
        order=_digest(*order),
    )


def from_plain(value: Any) -> Contents | None:
    """The contents in a checkpoint; None if it has none that this version can compare."""
    try:
        if value["format"] != _FORMAT:
            return None
        training, validation = (SplitContents(**value[name]) for name in _SPLITS)
        return Contents(training, validation, value["order"])
    except (TypeError, LookupError):
        return None


def differences(before: Contents, now: Contents) -> list[str]:
    """A line for each split that differs."""
    lines = []
    for name in _SPLITS:
        old, new = getattr(before, name), getattr(now, name)
        if old.all == new.all:
            continue
        line = f"{name}: was {_counts(old)}, is {_counts(new)}"
        if old.ids == new.ids:
            line += ", with the same ids and other captions or labels"
        elif old.images == new.images:
            line += ", with other ids"
        lines.append(line)
    return lines


def _counts(split: SplitContents) -> str:
    captions = "" if split.captions is None else f" with {split.captions} captions"
    return f"{split.images} images{captions}"


def _split(records: WholeSplit, rows: npt.NDArray[np.void]) -> SplitContents:
    rows = np.sort(rows, order=CONTENT_ROW.names)
    return SplitContents(len(rows), records.caption_count, _digest(rows["image_id"]), _digest(rows))


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()

"""What both splits hold, as a checkpoint keeps it: a run that resumes on other data notices.

Image ids and captions or categories count, wherever and in whichever format they are; the images'
pixels do not. A record counts as the JSON that `virtex pack` writes of it, so that a data set and
the shards packed from it have equal contents; the indexes of shards hold what is needed.
"""

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from virtex.data.records import Records, record_json

_FORMAT = 1
_SPLITS = ("training", "validation")

CONTENT_ROW = np.dtype([("image_id", "<i8"), ("text_bytes", "<u4"), ("text_crc32", "<u4")])
Labels = tuple[Sequence[str], Sequence[int] | None]
"""A record's captions, and its categories in a data set of objects."""


def content_rows(image_ids: Sequence[int], labels: Iterable[Labels]) -> npt.NDArray[np.void]:
    """A row of `CONTENT_ROW` for each record, (N,), in their order."""
    rows = []
    for image_id, (captions, categories) in zip(image_ids, labels, strict=True):
        text = record_json(image_id, captions, categories)
        rows.append((image_id, len(text), zlib.crc32(text)))
    return np.array(rows, CONTENT_ROW)


@dataclass(frozen=True)
class SplitContents:
    """How many images and captions, SHA-256 of all ids, and of ids with captions or categories.

    `captions` is None where they are not counted: in shards, and of objects.
    """

    images: int
    captions: int | None
    ids: str
    all: str


@dataclass(frozen=True)
class Contents:
    """Both splits; `order` is SHA-256 of what decides the order of training, but for the seed."""

    training: SplitContents
    validation: SplitContents
    order: str

    def to_plain(self) -> dict[str, object]:
        """What a checkpoint holds."""
        return {"format": _FORMAT, **asdict(self)}


class WholeSplit(Records, Protocol):
    """The records of a whole split."""

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (N,), in their order."""
        ...

    @property
    def caption_count(self) -> int | None:
        """The captions of all records; None where counting them would mean reading all shards."""
        ...


def contents(
    training: WholeSplit, chosen: Records, validation: WholeSplit, window: int
) -> Contents:
    """The contents of whole splits, and the order of those images that are `chosen` to train on.

    `window` is how many samples of shards are shuffled together.
    """
    rows = training.content_rows
    order = [rows["image_id"] if chosen is training else chosen.image_ids]
    if len(chosen) > window:  # else all shards are shuffled together
        order.append(chosen.shard_sizes)
    return Contents(
        training=_split(training, rows),
        validation=_split(validation, validation.content_rows),
        order=_digest(*order),
    )


def from_plain(value: Any) -> Contents | None:
    """The contents in a checkpoint; None where it has none that this version can compare."""
    try:
        if value["format"] != _FORMAT:
            return None
        training, validation = (SplitContents(**value[name]) for name in _SPLITS)
        return Contents(training, validation, value["order"])
    except (TypeError, LookupError):
        return None


def differences(before: Contents, now: Contents) -> list[str]:
    """A line for each split that differs."""
    pairs = {name: (getattr(before, name), getattr(now, name)) for name in _SPLITS}
    return [
        f"{name}: was {_words(old)}, is {_words(new)}{_same_numbers(old, new)}"
        for name, (old, new) in pairs.items()
        if old.all != new.all
    ]


def _words(split: SplitContents) -> str:
    captions = "" if split.captions is None else f" with {split.captions} captions"
    return f"{split.images} images{captions}"


def _same_numbers(old: SplitContents, new: SplitContents) -> str:
    if old.images != new.images:
        return ""
    if old.ids != new.ids:
        return ", of other ids"
    return ", the same ids with other captions or categories"


def _split(records: WholeSplit, rows: npt.NDArray[np.void]) -> SplitContents:
    # Whatever their order and their shards.
    rows = np.sort(rows, order=CONTENT_ROW.names)
    return SplitContents(len(rows), records.caption_count, _digest(rows["image_id"]), _digest(rows))


def _digest(*arrays: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()

"""Several data sets as one: their records follow each other."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.contents import WholeSplit
from virtex.data.records import Record, Records, hashed_id
from virtex.data.shared_strings import shared
from virtex.data.subset import Subset


class JoinedRecords:
    """The records of several sources, one source after the other.

    If sources share image ids, every id becomes a hash of the source's number and the id in it, so
    that no two records have the same.
    """

    def __init__(
        self,
        parts: Sequence[WholeSplit],
        report: tuple[str, ...],
        categories: tuple[str, ...] = (),
    ) -> None:
        """`categories` are the names of those of objects, in every part the same."""
        self.parts = tuple(parts)
        self.report = report
        self.categories = categories
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        ids = np.concatenate([part.image_ids for part in parts])
        self._hashed = len(np.unique(ids)) < len(ids)
        if self._hashed:
            ids = np.concatenate([_hashed_ids(*numbered) for numbered in enumerate(parts)])
        self._image_ids = shared(ids.astype(np.int64))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Record:
        part, position = self._find(index)
        record = self.parts[part][position]
        if not self._hashed:
            return record
        return replace(record, image_id=int(self._image_ids.numpy()[index]))

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` that do not exist or are empty."""
        inside: list[list[int]] = [[] for _ in self.parts]
        for index in positions:
            part, position = self._find(index)
            inside[part].append(position)
        pairs = zip(self.parts, inside, strict=True)
        return [path for part, found in pairs for path in part.missing(found)]

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,)."""
        ids: npt.NDArray[np.int64] = self._image_ids.numpy()
        return ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of records in each shard of all sources."""
        return np.concatenate([part.shard_sizes for part in self.parts])

    @property
    def fingerprint(self) -> str:
        """A hash of the content of all sources."""
        text = "\n".join(part.fingerprint for part in self.parts)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (N,)."""
        rows = np.concatenate([part.content_rows for part in self.parts])
        rows["image_id"] = self.image_ids
        return rows

    @property
    def caption_count(self) -> int | None:
        """The number of captions of all sources; None if one does not know its own."""
        total = 0
        for part in self.parts:
            if part.caption_count is None:
                return None
            total += part.caption_count
        return total

    def _find(self, index: int) -> tuple[int, int]:
        """The source of a record and its position in it."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


def source_shard_sizes(records: Records, whole: JoinedRecords) -> tuple[npt.NDArray[np.int64], ...]:
    """The shard sizes of `records`, which are `whole` or a subset of it, for each source."""
    if isinstance(records, Subset):
        return records.parts([len(part.shard_sizes) for part in whole.parts])
    return tuple(part.shard_sizes for part in whole.parts)


def _hashed_ids(number: int, part: WholeSplit) -> npt.NDArray[np.int64]:
    return np.array([hashed_id(number, name) for name in part.image_ids.tolist()], np.int64)

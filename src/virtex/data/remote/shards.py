"""Remote shards: their files, and whether they fit into the cache."""

from bisect import bisect_right
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal

import numpy as np
import numpy.typing as npt

from virtex.data.records import Records
from virtex.data.remote.cache import TRAILER_BYTES
from virtex.data.remote.store import RemoteStatistics, RemoteStore
from virtex.data.shards.manifest import ShardManifest
from virtex.data.shards.reader import Shards
from virtex.data.sources.drawn_split import DrawnSplit
from virtex.data.sources.joined import JoinedRecords, source_shard_sizes
from virtex.data.subset import Subset
from virtex.errors import UserError

Content = tuple[int, str]
"""The bytes of a file, and their SHA-256 in hex."""
Files = dict[tuple[int, str], Content]
"""Files by the number of their store and their name in it."""


@dataclass(frozen=True)
class RemoteShards:
    """The shards `numbers` (S,) of a manifest, with the `samples` to read in each, (S,)."""

    store: RemoteStore
    manifest: ShardManifest
    numbers: npt.NDArray[np.int64]
    samples: npt.NDArray[np.int64]
    with_indexes: bool

    @property
    def bytes(self) -> npt.NDArray[np.int64]:
        """The bytes that each shard takes in the cache, (S,)."""
        tars = self.manifest.tar_bytes[self.numbers] + TRAILER_BYTES
        if not self.with_indexes:
            return tars
        return tars + self.manifest.index_bytes[self.numbers] + TRAILER_BYTES

    def files(self, shards: npt.NDArray[np.int64]) -> dict[str, Content]:
        """The files of some of the S shards, by their names."""
        manifest, files = self.manifest, dict[str, Content]()
        for number in self.numbers[shards].tolist():
            tar = manifest.names[number]
            digest = manifest.tar_sha256[number].tobytes().hex()
            files[tar] = (int(manifest.tar_bytes[number]), digest)
            if self.with_indexes:
                digest = manifest.index_sha256[number].tobytes().hex()
                files[manifest.index_name(tar)] = (int(manifest.index_bytes[number]), digest)
        return files

    def bytes_of_two_windows(self, window: int) -> int:
        """The most bytes that two successive windows take in the cache, in any order of shards."""
        return min(2 * _largest_window(self.samples, self.bytes, window), int(self.bytes.sum()))


@dataclass(frozen=True)
class RemoteSource:
    """Both splits of one source, which is the `number`th; `first` is its first training shard."""

    number: int
    first: int
    training: RemoteShards
    validation: RemoteShards

    def own(self, shards: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Those of the training shards of all sources that are its own, by their numbers in it."""
        inside = shards - self.first
        return inside[(inside >= 0) & (inside < len(self.training.numbers))]

    def most_bytes(self, window: int) -> int:
        """The most bytes that validation and two successive windows take in the cache."""
        most = self.training.bytes_of_two_windows(window) + int(self.validation.bytes.sum())
        if self.training.store is not self.validation.store:
            return most
        both = np.union1d(self.training.numbers, self.validation.numbers)
        return min(most, int(replace(self.training, numbers=both).bytes.sum()))


@dataclass(frozen=True)
class RemoteSplits:
    """The sources of the data that are remote, at least one."""

    sources: tuple[RemoteSource, ...]

    @property
    def stores(self) -> tuple[RemoteStore, ...]:
        """The store of the training shards of each source."""
        return tuple(source.training.store for source in self.sources)

    @property
    def statistics(self) -> RemoteStatistics:
        """The counts of all stores, over this process and those that it started."""
        stores = {
            id(shards.store): shards.store
            for source in self.sources
            for shards in (source.training, source.validation)
        }
        counts = zip(*(store.statistics for store in stores.values()), strict=True)
        return RemoteStatistics(*map(sum, counts))

    @property
    def fetched_for_training(self) -> int:
        """Bytes fetched for training by this process and those that it started."""
        return sum(store.statistics.bytes for store in self.stores)

    def bytes(self, shards: npt.NDArray[np.int64]) -> int:
        """The bytes that some training shards take in the cache."""
        own = ((source, source.own(shards)) for source in self.sources)
        return sum(int(source.training.bytes[numbers].sum()) for source, numbers in own)

    def files(self, shards: npt.NDArray[np.int64]) -> Files:
        """The files of some training shards."""
        return {
            (place, name): content
            for place, source in enumerate(self.sources)
            for name, content in source.training.files(source.own(shards)).items()
        }

    def check_space(self, window: int, cache_gb: float) -> None:
        """Raise UserError unless two windows and the validation split fit into the cache."""
        limit = int(cache_gb * 1e9)

        def needed(window: int) -> int:
            return sum(source.most_bytes(window) for source in self.sources)

        if needed(window) <= limit:
            return
        fitting = bisect_right(range(1, window), limit, key=needed)
        remedy = f"set DATA.CACHE_GB to {_gigabytes(needed(window))} or more"
        if fitting:
            remedy += f", or DATA.SHUFFLE_WINDOW to {fitting} or less"
        roots = ", ".join(store.root for store in self.stores)
        windows = sum(each.training.bytes_of_two_windows(window) for each in self.sources)
        validation = sum(int(each.validation.bytes.sum()) for each in self.sources)
        raise UserError(
            f"DATA.CACHE_GB is {cache_gb:g}, too little for {roots}: two windows of"
            f" DATA.SHUFFLE_WINDOW {window} samples take up to {windows:,} bytes, and validation's"
            f" shards {validation:,}; {remedy}"
        )


def remote_splits(training: Records, chosen: Records, validation: Records) -> RemoteSplits | None:
    """The shards of `chosen`, which is `training` or a part of it, and of `validation`.

    None if none are remote.
    """
    if not isinstance(training, JoinedRecords) or not isinstance(validation, JoinedRecords):
        one, other = _remote(chosen), _remote(validation)
        if one is None or other is None:
            return None
        return RemoteSplits((RemoteSource(0, 0, one, other),))
    sizes = source_shard_sizes(chosen, training)
    numbers = np.split(_numbers(chosen), np.cumsum([len(of_one) for of_one in sizes])[:-1])
    sources, first, before = [], 0, 0
    for number, (part, other_part) in enumerate(zip(training.parts, validation.parts, strict=True)):
        one = _remote(part, numbers[number] - before, sizes[number])
        other = _remote(other_part)
        if one is not None and other is not None:
            sources.append(RemoteSource(number, first, one, other))
        first += len(sizes[number])
        before += len(part.shard_sizes)
    return RemoteSplits(tuple(sources)) if sources else None


def _numbers(records: Records) -> npt.NDArray[np.int64]:
    """The numbers of the shards of a subset in the whole; those of a whole are 0, 1, …"""
    if isinstance(records, Subset):
        return records.shards
    return np.arange(len(records.shard_sizes))


def _remote(
    records: Records,
    numbers: npt.NDArray[np.int64] | None = None,
    samples: npt.NDArray[np.int64] | None = None,
) -> RemoteShards | None:
    """The remote shards at `numbers` among those of `records`, with so many samples of each.

    Without them, all. None if the records are not remote.
    """
    numbers = np.arange(len(records.shard_sizes)) if numbers is None else numbers
    samples = records.shard_sizes if samples is None else samples
    if isinstance(records, DrawnSplit):
        return _remote(records.subset, numbers, samples)
    if isinstance(records, Subset):
        return _remote(records.whole, records.shards[numbers], samples)
    if not isinstance(records, Shards) or not isinstance(records.store, RemoteStore):
        return None
    return RemoteShards(
        store=records.store,
        manifest=records.manifest,
        numbers=numbers,
        samples=samples,
        with_indexes=records.home is records.store,
    )


def _largest_window(
    samples: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], window: int
) -> int:
    """The most bytes of shards with up to `window` samples together, or of one shard."""
    most = np.argsort(-sizes / np.maximum(samples, 1e-9))  # bytes a sample
    before = np.cumsum(samples[most]) - samples[most]
    share = np.clip((window - before) / np.maximum(samples[most], 1e-9), 0, 1)
    return max(int(np.ceil(share @ sizes[most])), int(sizes.max()))


def _gigabytes(size: int) -> Decimal:
    return Context(prec=3, rounding=ROUND_CEILING).divide(Decimal(size), 10**9)

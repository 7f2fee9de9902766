"""Remote shards: their files, and whether they fit into the cache."""

from bisect import bisect_right
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal

import numpy as np
import numpy.typing as npt

from virtex.data.records import Records
from virtex.data.remote.cache import TRAILER_BYTES
from virtex.data.remote.store import RemoteStatistics, RemoteStore
from virtex.data.shards.manifest import ShardManifest
from virtex.data.shards.reader import Shards
from virtex.data.subset import Subset
from virtex.errors import UserError

Files = dict[str, tuple[int, str]]
"""Names of files in a store to their bytes and SHA-256 in hex."""


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

    def files(self, shards: npt.NDArray[np.int64]) -> Files:
        """The files of some of the S shards."""
        manifest, files = self.manifest, Files()
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
class RemoteSplits:
    """Both splits of a remote data set."""

    training: RemoteShards
    validation: RemoteShards

    @property
    def statistics(self) -> RemoteStatistics:
        """The counts of both, over this process and those that it started."""
        both = (self.training.store.statistics, self.validation.store.statistics)
        return RemoteStatistics(*map(sum, zip(*both, strict=True)))

    def check_space(self, window: int, cache_gb: float) -> None:
        """Raise UserError unless two windows and the validation split fit into the cache."""
        limit = int(cache_gb * 1e9)
        validation = int(self.validation.bytes.sum())

        def needed(window: int) -> int:
            return self.training.bytes_of_two_windows(window) + validation

        if needed(window) <= limit:
            return
        fitting = bisect_right(range(1, window), limit, key=needed)
        remedy = f"set DATA.CACHE_GB to {_gigabytes(needed(window))} or more"
        if fitting:
            remedy += f", or DATA.SHUFFLE_WINDOW to {fitting} or less"
        raise UserError(
            f"DATA.CACHE_GB is {cache_gb:g}, too little for {self.training.store.root}: two windows"
            f" of DATA.SHUFFLE_WINDOW {window} samples take up to"
            f" {self.training.bytes_of_two_windows(window):,} bytes, and validation's shards"
            f" {validation:,}; {remedy}"
        )


def remote_splits(training: Records, chosen: Records, validation: Records) -> RemoteSplits | None:
    """The shards of `chosen`, which is `training` or a part of it, and of `validation`.

    None if they are not remote.
    """
    one, other = _remote(training, chosen), _remote(validation, validation)
    return None if one is None or other is None else RemoteSplits(one, other)


def _remote(records: Records, chosen: Records) -> RemoteShards | None:
    if not isinstance(records, Shards) or not isinstance(records.store, RemoteStore):
        return None
    return RemoteShards(
        store=records.store,
        manifest=records.manifest,
        numbers=chosen.shards if isinstance(chosen, Subset) else np.arange(len(chosen.shard_sizes)),
        samples=chosen.shard_sizes,
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

"""Indexing the shards of a directory with several processes."""

from torch.utils.data import Dataset

from virtex.data.shards.indexing import (
    Indexing,
    IndexingWork,
    OnIndexed,
    find_manifest,
)
from virtex.data.shards.manifest import ShardManifest
from virtex.data.shards.shard_workers import in_workers
from virtex.data.shards.store import MemoryStore, Store
from virtex.errors import UserError


def index_directory(
    indexing: Indexing, on_indexed: OnIndexed, *, workers: int
) -> tuple[ShardManifest, Store, bool]:
    """The manifest of the shards, the store of their indexes, and whether any was made now.

    Raises UserError if there are no shards, one is malformed, or no index can be written.
    """
    found = find_manifest(indexing, on_indexed)
    if not isinstance(found, IndexingWork):
        return *found, False
    if isinstance(found.home, MemoryStore):
        raise UserError(
            f"cannot write an index to {indexing.store.root} or to {indexing.cache.root}:"
            " permission denied; copy the shards to a directory that can be written"
        )
    if workers < 2 or len(found.names) < 2:
        for name in found.names:
            found.index(name)
    else:
        shards = _ShardIndexing(found)
        for name in in_workers(shards, min(workers, len(found.names)), doing="indexing"):
            found.count(name)
    return *found.finish(), True


class _ShardIndexing(Dataset[str | UserError]):
    """Indexes the shard of a number and gives its name; errors are returned as values."""

    def __init__(self, work: IndexingWork) -> None:
        self._work, self._names = work, work.names

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> str | UserError:
        name, work = self._names[number], self._work
        try:
            if not work.is_indexed(name):
                work.indexing.make(name, work.home, _ignore)
        except UserError as error:
            return error
        return name


def _ignore(length: int) -> None:
    """Do nothing: progress is counted where the names arrive."""

"""Indexing the shards of a directory with several processes."""

import signal
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from virtex.data.shards.indexing import (
    Indexing,
    IndexingWork,
    OnIndexed,
    find_manifest,
)
from virtex.data.shards.manifest import ShardManifest
from virtex.data.shards.store import MemoryStore, Store
from virtex.errors import RunError, UserError


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
        _index_in_workers(found, min(workers, len(found.names)))
    return *found.finish(), True


def _index_in_workers(work: IndexingWork, workers: int) -> None:
    loader = DataLoader(
        _ShardIndexing(work),
        batch_size=None,
        collate_fn=_identity,
        num_workers=workers,
        worker_init_fn=_start_worker,
    )
    try:
        for name in loader:
            if isinstance(name, UserError):
                raise name
            work.count(name)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader "):  # torch's own words for a lost worker
            raise
        raise RunError(
            f"indexing failed: {error}. Run the command again, with fewer --workers if memory is"
            " short; finished indexes are kept"
        ) from error


def _identity(name: Any) -> Any:
    return name


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers


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

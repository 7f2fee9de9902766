"""Batches of examples, loaded ahead by worker processes.

Convention: which examples a batch holds is a function of (seed, iteration), so a run resumes at any
iteration, with any number of workers and processes, without saved state. The keys of a batch go to
one worker, which returns the whole batch; errors are returned as values and raised when the batch
is due.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from virtex.data.dataset import VALIDATION_EPOCH, Example, Key
from virtex.data.images import BadImage
from virtex.data.loader_workers import WorkerTimeout, started_workers, worker_start, workers_of
from virtex.data.mixed_order import Mixture, mixed_keys
from virtex.data.order import DEFAULT_WINDOW, training_keys
from virtex.data.prefetch_plan import (
    Prefetching,
    mixed_windows,
    training_windows,
    with_prefetch,
)
from virtex.errors import RunError, UserError

_POLL_SECONDS = 5.0
"""The interval at which torch checks whether the workers live, while a batch is waited for."""
_BATCHES_PER_WORKER = 2
"""The number of batches that a worker has to load at a time."""

Batch = dict[str, torch.Tensor]
Collate = Callable[[list[Example]], Batch]


class LoadedBatch(NamedTuple):
    """A batch, and the errors of the files that were skipped for it.

    In validation the batch is empty if all its files were skipped.
    """

    batch: Batch
    bad: Sequence[BadImage]


class Examples(Protocol):
    """What makes examples from keys, such as `ExampleDataset`."""

    def __len__(self) -> int: ...

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of examples in each shard, in order, (S,)."""
        ...

    def examples(self, keys: Sequence[Key]) -> tuple[list[Example], list[BadImage]]:
        """The examples of the keys, and the errors of the files that were skipped."""
        ...


def training_batches(
    dataset: Examples,
    collate: Collate,
    *,
    batch_size: int,
    workers: int,
    seed: int,
    window: int = DEFAULT_WINDOW,
    first_iteration: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    prefetcher: Prefetching | None = None,
    mixture: Mixture | None = None,
    earlier: Sequence[tuple[int, Examples]] = (),
    timeout_seconds: float = 600.0,
) -> Iterator[LoadedBatch]:
    """This process's parts of the global batches, endless, from `first_iteration` (0 or more).

    `batch_size` is that of all processes together; process `rank` gets its contiguous part. Every
    epoch has its own order, in which `window` samples of whole shards are shuffled together; its
    last examples, which fill no batch, are not used. With a `mixture`, the examples are those of
    its sources, in the order of `mixed_keys`. `earlier` are pairs of an iteration and of what makes
    the examples up to it, in ascending order. `workers` processes load (0: this one). Keys
    of a window are given to workers when `prefetcher` has its shards; if no batch arrives for
    `timeout_seconds`, the run ends.

    Raises UserError at once if the batch is larger than the data or not divisible by `world_size`;
    in iteration UserError as `dataset` does, and RunError when a worker dies or is too slow.
    """
    part = _part(batch_size, world_size)
    check_batch_size(batch_size, len(dataset))
    place: dict[str, int] = {
        "window": window,
        "batch_size": batch_size,
        "seed": seed,
        "first_iteration": first_iteration,
    }
    own = slice(rank * part, (rank + 1) * part)
    keys: Iterable[list[Key]] = (
        training_keys(dataset.shard_sizes, part=own, **place)
        if mixture is None
        else mixed_keys(mixture, part=own, **place)
    )
    if prefetcher is not None:
        windows = (
            training_windows(dataset.shard_sizes, **place)
            if mixture is None
            else mixed_windows(mixture, sources=prefetcher.sources, **place)
        )
        lag = workers * _BATCHES_PER_WORKER
        keys = with_prefetch(keys, windows, prefetcher, first_iteration=first_iteration, lag=lag)
    stages = _BatchDataset([*(examples for _, examples in earlier), dataset], collate)
    ends = [last for last, _ in earlier]
    staged = (
        (bisect_left(ends, iteration), batch)
        for iteration, batch in enumerate(keys, first_iteration + 1)
    )
    return _batches(stages, staged, workers, pin_memory, timeout_seconds)


def validation_batches(
    dataset: Examples,
    collate: Collate,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    timeout_seconds: float = 600.0,
) -> Iterator[LoadedBatch]:
    """Every example once over all processes, the same each time, the last batch smaller.

    Processes may get one batch more or less than others. Arguments and errors as for training.
    """
    part = _part(batch_size, world_size)
    indices = range(rank, len(dataset), world_size)
    keys = (
        (0, [Key(VALIDATION_EPOCH, index) for index in indices[start : start + part]])
        for start in range(0, len(indices), part)
    )
    return _batches(_BatchDataset([dataset], collate), keys, workers, pin_memory, timeout_seconds)


def check_batch_size(batch_size: int, examples: int) -> None:
    """Raise UserError if a batch is larger than the data."""
    if batch_size > examples:
        raise UserError(
            f"OPTIM.BATCH_SIZE {batch_size} is larger than the data ({examples} training"
            " images): choose a smaller batch or more data"
        )


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """Turn torch's error of a worker that died or hangs into a RunError.

    torch raises it wherever the main process happens to be when a worker dies, so all work that
    workers run beside belongs in this context, not only the iteration over batches.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader "):  # torch's own words for a lost worker
            raise
        raise RunError(
            f"loading the data failed: {error}. A worker that was killed mostly means too little"
            " memory: use fewer workers (--cpu-workers) or a smaller batch"
        ) from error


def _part(batch_size: int, world_size: int) -> int:
    """The examples of a global batch that one process gets."""
    if batch_size < 1 or batch_size % world_size:
        raise UserError(
            f"a batch of {batch_size} cannot be divided over {world_size} processes:"
            " choose a multiple of their number"
        )
    return batch_size // world_size


class _BatchDataset(Dataset[LoadedBatch | UserError]):
    """Makes batches from the number of a stage and their keys, in a worker."""

    def __init__(self, stages: Sequence[Examples], collate: Collate) -> None:
        self._stages = stages
        self._collate = collate

    def __getitem__(self, stage_and_keys: tuple[int, list[Key]]) -> LoadedBatch | UserError:
        stage, keys = stage_and_keys
        try:
            examples, bad = self._stages[stage].examples(keys)
        except UserError as error:
            # As a value: torch would wrap a raised error in the worker's traceback.
            return error
        batch = self._collate(examples) if examples else {}
        if get_worker_info() is not None:
            try:
                # Here, as torch would do it in a thread whose error nobody hears of.
                for tensor in batch.values():
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                return RunError(f"shared memory is full, so a batch could not be sent ({error})")
        return LoadedBatch(batch, bad)


def _batches(
    dataset: _BatchDataset,
    keys: Iterable[tuple[int, list[Key]]],
    workers: int,
    pin_memory: bool,
    timeout_seconds: float,
) -> Iterator[LoadedBatch]:
    """The batches of stages and keys, in order; errors that came as values are raised."""
    # Holds interrupts until the first keys are asked for, when all workers have started.
    starting = ExitStack()
    watch = WorkerTimeout(timeout_seconds)
    loader = DataLoader(
        dataset,
        batch_size=None,  # a key of `dataset` is a batch already
        sampler=watch.keys(keys, starting.close),
        collate_fn=_identity,
        num_workers=workers,
        prefetch_factor=_BATCHES_PER_WORKER if workers else None,
        pin_memory=pin_memory,
        timeout=_POLL_SECONDS if workers else 0,
        worker_init_fn=worker_start(),
        # Otherwise each iterator would draw from the global random state.
        generator=torch.Generator(),
    )
    with (
        translate_worker_errors(),
        watch.limited(),
        started_workers(loader, starting) as batches,
    ):
        watch.start(workers_of(batches))
        while True:
            watch.check()
            try:
                with watch.waiting():
                    loaded = _next(batches)
            except StopIteration:
                watch.check()
                return
            if isinstance(loaded, UserError):
                raise loaded
            yield loaded


def _next(batches: Iterator[LoadedBatch | UserError]) -> LoadedBatch | UserError:
    """The next batch; every few seconds torch checks whether the workers live.

    Otherwise torch would notice a lost worker by a signal alone, which it does not if the worker
    was lost before torch had noted its process id.
    """
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise


def _identity(loaded: Any) -> Any:
    return loaded

"""Batches of examples, loaded ahead by worker processes.

Convention: which examples a batch holds is a function of (seed, iteration), so a run resumes at any
iteration, with any number of workers and processes, without saved state. The keys of a batch go to
one worker, which returns the whole batch; errors come back as values and are raised where the batch
is due.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from virtex.data.dataset import VALIDATION_EPOCH, Example, Key
from virtex.data.images import BadImage
from virtex.data.loader_workers import Patience, started_workers, worker_start, workers_of
from virtex.data.order import DEFAULT_WINDOW, TrainingKeys
from virtex.data.prefetch_plan import Prefetching, training_windows, with_prefetch
from virtex.errors import RunError, UserError

_LOOK_SECONDS = 5.0
"""How often to look whether the workers live, while a batch is waited for."""

Batch = dict[str, torch.Tensor]
Collate = Callable[[list[Example]], Batch]
Skipped = Callable[[BadImage], None]

_BATCHES_OF_A_WORKER = 2
"""That are given out to it at a time."""


class Examples(Protocol):
    """What is loaded: `ExampleDataset`, or anything else that makes examples from keys."""

    def __len__(self) -> int: ...

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """How many examples lie together in each shard, in order, (S,)."""
        ...

    def examples(self, keys: Sequence[Key]) -> tuple[list[Example], list[BadImage]]:
        """The examples of the keys, and the errors of files that were passed over."""
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
    skipped: Skipped | None = None,
    ahead: Prefetching | None = None,
    timeout_seconds: float = 600.0,
) -> Iterator[Batch]:
    """This process's parts of the global batches, endless, from `first_iteration` (0 or more).

    `batch_size` is that of all processes together; process `rank` gets its contiguous part. Every
    epoch has its own order, in which `window` samples of whole shards are shuffled together; its
    last examples, that fill no batch, are left out. `workers` processes load (0: this one).
    `skipped` gets every file that was passed over, once. Keys of a window are given out when
    `ahead` has its shards; a worker that then gives nothing for `timeout_seconds` ends the run.

    Raises UserError at once when the batch is larger than the data or not divisible by
    `world_size`; in iteration UserError as `dataset` does, and RunError when a worker dies or is
    too slow.
    """
    part = _part(batch_size, world_size)
    check_batch_size(batch_size, len(dataset))
    keys: Iterable[list[Key]] = TrainingKeys(
        dataset.shard_sizes,
        window=window,
        batch_size=batch_size,
        part=slice(rank * part, (rank + 1) * part),
        seed=seed,
        first_iteration=first_iteration,
    )
    if ahead is not None:
        windows = training_windows(
            dataset.shard_sizes,
            window=window,
            batch_size=batch_size,
            seed=seed,
            first_iteration=first_iteration,
        )
        lag = workers * _BATCHES_OF_A_WORKER
        keys = with_prefetch(keys, windows, ahead, first_iteration=first_iteration, lag=lag)
    return _batches(
        _BatchDataset(dataset, collate), keys, workers, pin_memory, skipped, timeout_seconds
    )


def validation_batches(
    dataset: Examples,
    collate: Collate,
    *,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    skipped: Skipped | None = None,
    timeout_seconds: float = 600.0,
) -> Iterator[Batch]:
    """Every example once over all processes, the same each time, the last batch smaller.

    Processes may get one batch more or less than others. Arguments and errors as for training.
    """
    part = _part(batch_size, world_size)
    indices = range(rank, len(dataset), world_size)
    batches = (
        [Key(VALIDATION_EPOCH, index) for index in indices[start : start + part]]
        for start in range(0, len(indices), part)
    )
    return _batches(
        _BatchDataset(dataset, collate), batches, workers, pin_memory, skipped, timeout_seconds
    )


def check_batch_size(batch_size: int, examples: int) -> None:
    """Raise UserError where a batch is larger than the data."""
    if batch_size > examples:
        raise UserError(
            f"OPTIM.BATCH_SIZE {batch_size} is larger than the data ({examples} training"
            " images): choose a smaller batch or more data"
        )


@contextmanager
def translate_worker_errors() -> Iterator[None]:
    """Turn torch's error of a worker that died or hangs into a RunError.

    torch raises it wherever the main process happens to be when a worker dies, so not only the
    iteration over batches but all work beside it belongs into this context.
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


class _WorkerResult(NamedTuple):
    """What a worker hands over: a batch, unless all its files were left out, or an error."""

    batch: Batch | None
    bad: Sequence[BadImage]
    error: UserError | None


class _BatchDataset(Dataset[_WorkerResult]):
    """The worker's side: the keys of a batch to the batch."""

    def __init__(self, dataset: Examples, collate: Collate) -> None:
        self._dataset = dataset
        self._collate = collate

    def __getitem__(self, keys: list[Key]) -> _WorkerResult:
        try:
            examples, bad = self._dataset.examples(keys)
        except UserError as error:
            # As a value: torch would wrap a raised error in the worker's traceback.
            return _WorkerResult(None, (), error)
        batch = self._collate(examples) if examples else None
        if batch is not None and get_worker_info() is not None:
            try:
                # Here, as torch would do it in a thread whose error nobody hears of.
                for tensor in batch.values():
                    tensor.share_memory_()  # type: ignore[no-untyped-call]
            except RuntimeError as error:
                text = f"shared memory is full, so a batch could not be handed over ({error})"
                return _WorkerResult(None, (), RunError(text))
        return _WorkerResult(batch, bad, None)


def _batches(
    dataset: _BatchDataset,
    keys: Iterable[list[Key]],
    workers: int,
    pin_memory: bool,
    skipped: Skipped | None,
    timeout_seconds: float,
) -> Iterator[Batch]:
    """The main process's side: batches in order, errors raised, bad files reported once each."""
    started = ExitStack()  # what holds until the workers are there, which the first keys need
    patience = Patience(timeout_seconds)
    loader = DataLoader(
        dataset,
        batch_size=None,  # a key of `dataset` is a batch already
        sampler=patience.keys(keys, started.close),
        collate_fn=_identity,
        num_workers=workers,
        prefetch_factor=_BATCHES_OF_A_WORKER if workers else None,
        pin_memory=pin_memory,
        timeout=_LOOK_SECONDS if workers else 0,
        worker_init_fn=worker_start(),
        # Otherwise each iterator would draw from the global random state.
        generator=torch.Generator(),
    )
    known = set()
    for loaded in _iterate_with_timeout(loader, started, patience):
        for bad in loaded.bad:
            if skipped is not None and bad.picture not in known:
                known.add(bad.picture)
                skipped(bad)
        if loaded.error is not None:
            raise loaded.error
        if loaded.batch is not None:
            yield loaded.batch


def _iterate_with_timeout(
    loader: "DataLoader[_WorkerResult]", started: ExitStack, patience: Patience
) -> Iterator[_WorkerResult]:
    with (
        translate_worker_errors(),
        patience.limited(),
        started_workers(loader, started) as batches,
    ):
        patience.watch(workers_of(batches))
        while True:
            patience.check()
            try:
                with patience.waiting():
                    loaded = _next(batches)
            except StopIteration:
                patience.check()
                return
            yield loaded


def _next(batches: Iterator[_WorkerResult]) -> _WorkerResult:
    """The next batch, with a look at the workers every few seconds.

    Otherwise torch would hear of a lost worker by a signal alone, and does not where the worker was
    lost before torch had noted its number.
    """
    while True:
        try:
            return next(batches)
        except RuntimeError as error:
            if "timed out" not in str(error):
                raise


def _identity(loaded: Any) -> Any:
    return loaded

"""Worker processes that each do the work of one shard after another."""

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from virtex.errors import RunError, UserError

Result = TypeVar("Result")


def in_workers(
    shards: Dataset[Result | UserError], workers: int, *, doing: str
) -> Iterator[Result]:
    """The results in order, each as soon as it is there; fewer than two workers start no process.

    `shards` gives the result for the number of a shard, and errors as values, which are raised
    here. Raises RunError if a worker is lost; `doing` names the work in its message.
    """
    loader = DataLoader(
        shards,
        batch_size=None,
        collate_fn=_identity,
        num_workers=workers if workers > 1 else 0,
        worker_init_fn=_start_worker,
    )
    try:
        for result in loader:
            if isinstance(result, UserError):
                raise result
            yield result
    except RuntimeError as error:
        if not str(error).startswith("DataLoader "):  # torch's own words for a lost worker
            raise
        raise RunError(
            f"{doing} failed: {error}. Run the command again, with fewer --workers if memory is"
            " short; what is finished is kept"
        ) from error


def _identity(result: Any) -> Any:
    return result


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends the workers

"""Which shards training needs when, so that they are fetched before they are read."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from virtex.data.dataset import Key
from virtex.data.order import EpochOrder

Numbers = npt.NDArray[np.int64]


class Window(NamedTuple):
    """The iterations, from 0, whose batches hold samples of a window, and its shards."""

    first: int
    last: int
    shards: Numbers


class Prefetching(Protocol):
    """What fetches shards to this machine, such as `remote.Prefetcher`."""

    def wait_for(self, shards: Numbers, /) -> None:
        """Return when these shards have been fetched, or cannot be fetched now."""
        ...

    def prefetch(self, shards: Numbers, /) -> None:
        """Return at once; these shards will be needed next."""
        ...


def training_windows(
    shard_sizes: Numbers, *, window: int, batch_size: int, seed: int, first_iteration: int
) -> Iterator[Window]:
    """The windows in the order in which batches need them, from an iteration on, without end."""
    batches = int(shard_sizes.sum()) // batch_size
    epoch, first = divmod(first_iteration, batches)
    while True:
        for start, stop, shards in EpochOrder(shard_sizes, window, seed, epoch).windows():
            begin = max(start // batch_size, first)
            last = min((stop - 1) // batch_size, batches - 1)
            # Not windows before the first iteration, nor of the samples that fill no batch.
            if begin <= last:
                yield Window(epoch * batches + begin, epoch * batches + last, shards)
        epoch, first = epoch + 1, 0


def with_prefetch(
    keys: Iterable[list[Key]],
    windows: Iterator[Window],
    prefetcher: Prefetching,
    *,
    first_iteration: int,
    lag: int,
) -> Iterator[list[Key]]:
    """`keys`, each when its window has been fetched, with the window after it prefetched.

    `prefetcher` waits for a window when it begins, and prefetches the next one `lag` batches later,
    when no worker reads the previous window any more, so that its shards may be dropped. `windows`
    and `keys` are those from `first_iteration` on.
    """
    following, due = next(windows), -1
    for iteration, batch in enumerate(keys, first_iteration):
        while following.first <= iteration:
            window, following = following, next(windows)
            prefetcher.wait_for(window.shards)
            due = min(iteration + lag, window.last)
        if iteration == due:
            prefetcher.prefetch(following.shards)
        yield batch

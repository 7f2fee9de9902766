"""Which shards training needs when, so that they are fetched before they are read."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from virtex.data.dataset import Key
from virtex.data.mixed_order import MixedOrder, Mixture
from virtex.data.order import EpochOrder

Numbers = npt.NDArray[np.int64]


class Window(NamedTuple):
    """The iterations, from 0, that need some shards, and the shards that are needed after them."""

    first: int
    last: int
    shards: Numbers
    following: Numbers


class Prefetching(Protocol):
    """What fetches shards to this machine, such as `remote.Prefetcher`."""

    @property
    def sources(self) -> Sequence[int]:
        """The numbers of the sources whose shards it fetches."""
        ...

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

    def windows() -> Iterator[tuple[int, int, Numbers]]:
        epoch, first = divmod(first_iteration, batches)
        while True:
            for start, stop, shards in EpochOrder(shard_sizes, window, seed, epoch).windows():
                begin = max(start // batch_size, first)
                last = min((stop - 1) // batch_size, batches - 1)
                # Not windows before the first iteration, nor of the samples that fill no batch.
                if begin <= last:
                    yield epoch * batches + begin, epoch * batches + last, shards
            epoch, first = epoch + 1, 0

    for one, other in pairwise(windows()):
        yield Window(*one, following=other[2])


def mixed_windows(
    mixture: Mixture,
    *,
    sources: Sequence[int],
    window: int,
    batch_size: int,
    seed: int,
    first_iteration: int,
) -> Iterator[Window]:
    """The windows of some sources of a mixture together, from an iteration on.

    The last one, if each source has but one window, has no end. The shards are those of the present
    window of every source, numbered through all sources.
    """
    order = MixedOrder(mixture, window, seed, batch_size)
    counts = [len(sizes) for sizes in mixture.shard_sizes]

    def stream(source: int) -> Iterator[tuple[int, Numbers]]:
        for first, shards in order.windows(source, first_iteration):
            yield first, shards + sum(counts[:source])

    streams = list(map(stream, sources))
    present = [next(windows) for windows in streams]
    following = [next(windows, None) for windows in streams]
    first = first_iteration
    while True:
        changes = [
            (window[0], number) for number, window in enumerate(following) if window is not None
        ]
        until, change = min(changes, default=(sys.maxsize, 0))
        after = [one or other for one, other in zip(following, present, strict=True)]
        shards, next_shards = (
            np.concatenate([shards for _, shards in windows]) for windows in (present, after)
        )
        yield Window(first, max(first, until - 1), shards, next_shards)
        if not changes:
            return
        present[change], following[change] = after[change], next(streams[change], None)
        first = until


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
    window = next(windows)
    upcoming: Window | None = window
    due = -1
    for iteration, batch in enumerate(keys, first_iteration):
        while upcoming is not None and upcoming.first <= iteration:
            window, upcoming = upcoming, next(windows, None)
            prefetcher.wait_for(window.shards)
            due = min(iteration + lag, window.last)
        if iteration == due:
            prefetcher.prefetch(window.following)
        yield batch

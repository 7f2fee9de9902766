"""The examples of each training batch, as a function of (seed, iteration), without state.

Shards are shuffled, then the samples within windows of whole shards. Data that fit into one window,
and data sets of files, are shuffled as a whole.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from virtex.data.dataset import Key

_ORDER_STREAM, _SHARD_STREAM = 1, 2
DEFAULT_WINDOW = 131072


def training_keys(
    shard_sizes: npt.NDArray[np.int64],
    *,
    window: int,
    batch_size: int,
    part: slice,
    seed: int,
    first_iteration: int,
) -> Iterator[list[Key]]:
    """The keys in `part` of each global batch, from an iteration on, without end."""
    batches = int(shard_sizes.sum()) // batch_size
    epoch, first = divmod(first_iteration, batches)
    while True:
        order = EpochOrder(shard_sizes, window, seed, epoch)
        for batch in range(first, batches):
            whole = order[batch * batch_size : (batch + 1) * batch_size]
            yield [Key(epoch, index) for index in whole[part].tolist()]
        epoch, first = epoch + 1, 0


class EpochOrder:
    """A permutation of the positions in shards of these sizes, another for each (seed, epoch).

    Windows hold up to `window` samples in whole shards, at least one shard. Only one window is in
    memory, and any can be computed without the ones before it.
    """

    def __init__(
        self, shard_sizes: npt.NDArray[np.int64], window: int, seed: int, epoch: int
    ) -> None:
        self._seed, self._epoch = seed, epoch
        self._sizes = shard_sizes
        self._starts = np.cumsum(shard_sizes) - shard_sizes
        self._shards = generator(seed, epoch, _SHARD_STREAM).permutation(len(shard_sizes))
        ends = np.cumsum(shard_sizes[self._shards])
        self._cuts = _cuts(ends, window)
        # The start of each window in the order, and the end of the last.
        self._bounds = np.concatenate([[0], ends])[self._cuts]
        self._current: tuple[int, npt.NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, ranks: slice) -> npt.NDArray[np.int64]:
        """The positions at these ranks in the order; the slice has a start and a stop."""
        parts = [np.empty(0, np.int64)]
        start = ranks.start
        while start < min(ranks.stop, len(self)):
            window = int(np.searchsorted(self._bounds, start, side="right")) - 1
            begin = int(self._bounds[window])
            part = self._window(window)[start - begin : ranks.stop - begin]
            parts.append(part)
            start += len(part)
        return np.concatenate(parts)

    def windows(self) -> Iterator[tuple[int, int, npt.NDArray[np.int64]]]:
        """The start and the end of each window in the order, and its shards, ascending."""
        for number, (start, stop) in enumerate(pairwise(self._bounds.tolist())):
            yield start, stop, self._shards_of(number)

    def _shards_of(self, window: int) -> npt.NDArray[np.int64]:
        return np.sort(self._shards[self._cuts[window] : self._cuts[window + 1]])

    def _window(self, number: int) -> npt.NDArray[np.int64]:
        if self._current is None or self._current[0] != number:
            shards = self._shards_of(number)
            sizes = self._sizes[shards]
            before = np.cumsum(sizes) - sizes
            positions = np.arange(sizes.sum()) + np.repeat(self._starts[shards] - before, sizes)
            order = epoch_order(len(positions), self._seed, self._epoch, number)
            self._current = (number, positions[order])
        return self._current[1]


def epoch_order(examples: int, seed: int, epoch: int, window: int = 0) -> npt.NDArray[np.int64]:
    """A permutation of 0 … `examples` - 1, another for each (`seed`, `epoch`, `window`)."""
    stream = (_ORDER_STREAM, window) if window else (_ORDER_STREAM,)
    return generator(seed, epoch, *stream).permutation(examples)


def generator(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    """The generator of a stream of numbers, another for each seed, epoch and name of a stream."""
    # The spawn key keeps the stream apart from those of the examples.
    return np.random.default_rng(np.random.SeedSequence([seed, epoch], spawn_key=stream))


def _cuts(ends: npt.NDArray[np.int64], window: int) -> npt.NDArray[np.int64]:
    """The ranks of the shards that begin a window, and the number of shards; `ends` are theirs."""
    cuts, end = [0], 0
    while cuts[-1] < len(ends):
        fitting = int(np.searchsorted(ends, end + window, side="right"))
        cuts.append(max(fitting, cuts[-1] + 1))
        end = int(ends[cuts[-1] - 1])
    return np.array(cuts)

"""The order of training on several sources, as a function of (seed, iteration), without state.

An epoch has as many samples as all sources together, in whole batches. Each source gives a fixed
number of them, by its weight, and continues its own order (`order`) from epoch to epoch: its passes
over its samples are shuffled again, and one begins where the one before ends.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

import numpy as np
import numpy.typing as npt

from virtex.data.dataset import Key
from virtex.data.order import EpochOrder, generator
from virtex.errors import UserError

Numbers = npt.NDArray[np.int64]

_MIXTURE_STREAM = 3
_SEEDS = 2**32  # of a run


@dataclass(frozen=True, eq=False)
class Mixture:
    """Sources by their weights > 0, and the numbers of samples in the shards of each, (S,).

    The records of all sources follow each other in this order.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    shard_sizes: tuple[Numbers, ...]

    @property
    def sizes(self) -> list[int]:
        """The number of samples in each source."""
        return [int(sizes.sum()) for sizes in self.shard_sizes]

    def first_positions(self, window: int, seed: int) -> list[int]:
        """The position among all records of the sample that each source gives first."""
        return [passes.keys(0, 1)[0].position for passes in _all_passes(self, window, seed)]

    def quotas(self, samples: int) -> list[int]:
        """How many of the `samples` of an epoch each source gives; their sum is `samples`.

        Shares are rounded down, and what is missing goes to the largest remainders. Raises
        UserError for a source without samples, or whose weight gives it none.
        """
        weights = [Fraction(str(weight)) for weight in self.weights]
        shares = [samples * weight / sum(weights) for weight in weights]
        quotas = [int(share) for share in shares]
        by_remainder = sorted(range(len(shares)), key=lambda i: quotas[i] - shares[i])
        for source in by_remainder[: samples - sum(quotas)]:
            quotas[source] += 1
        for name, weight, quota, size in zip(
            self.names, self.weights, quotas, self.sizes, strict=True
        ):
            if not size:
                raise UserError(f"DATA.SOURCES: no image of {name} is used; remove this source")
            if not quota:
                raise UserError(
                    f"DATA.SOURCES: the weight {weight:g} of {name} gives it less than one of the"
                    f" {samples} samples of an epoch; choose a larger WEIGHT"
                )
        return quotas


def mixed_keys(
    mixture: Mixture,
    *,
    window: int,
    batch_size: int,
    part: slice,
    seed: int,
    first_iteration: int,
) -> Iterator[list[Key]]:
    """The keys in `part` of each global batch, from an iteration on, without end.

    The epoch of a key counts the passes over its source, so a sample that a pass repeats is
    augmented in another way.
    """
    order = MixedOrder(mixture, window, seed, batch_size)
    for iteration in count(first_iteration):
        yield order.batch(iteration)[part]


class MixedOrder:
    """The samples of each epoch; blocks of up to `window` samples are mixed, one is in memory."""

    def __init__(self, mixture: Mixture, window: int, seed: int, batch_size: int) -> None:
        """Raises UserError as `Mixture.quotas`."""
        self._seed, self._batch_size = seed, batch_size
        self._batches = sum(mixture.sizes) // batch_size
        samples = self._batches * batch_size
        self._quotas = np.array(mixture.quotas(samples), np.int64)
        self._sources = _all_passes(mixture, window, seed)
        blocks = -(-samples // window)
        # The samples of each source before each block, rounded to the nearest: (blocks + 1, S).
        fractions = 2 * np.arange(blocks + 1)[:, None] * self._quotas[None] + blocks
        self._before = fractions // (2 * blocks)
        self._starts = self._before.sum(axis=1)
        self._current: tuple[tuple[int, int], npt.NDArray[np.int64]] | None = None

    def batch(self, iteration: int) -> list[Key]:
        """The keys of the global batch of an iteration, from 0."""
        epoch, batch = divmod(iteration, self._batches)
        start, stop = batch * self._batch_size, (batch + 1) * self._batch_size
        keys: list[Key] = []
        while start < stop:
            block = int(np.searchsorted(self._starts, start, side="right")) - 1
            begin, end = self._starts[block : block + 2].tolist()
            until = min(stop, end)
            keys += self._part(epoch, block, start - begin, until - begin)
            start = until
        return keys

    def windows(self, source: int, first_iteration: int) -> Iterator[tuple[int, Numbers]]:
        """Each window of a source from an iteration on, without end unless it has but one.

        A window is the first iteration that has a sample of it, and its shards, by their numbers
        in the source.
        """
        for rank, shards in self._sources[source].windows(self._rank(source, first_iteration)):
            yield self._iteration(source, rank), shards

    def _rank(self, source: int, iteration: int) -> int:
        """How many samples a source has given before an iteration."""
        epoch, batch = divmod(iteration, self._batches)
        start = batch * self._batch_size
        block = int(np.searchsorted(self._starts, start, side="right")) - 1
        given = self._block(epoch, block)[: start - int(self._starts[block])]
        before = epoch * int(self._quotas[source]) + int(self._before[block, source])
        return before + int(np.count_nonzero(given == source))

    def _iteration(self, source: int, rank: int) -> int:
        """The iteration that has the sample at a rank in the endless order of a source."""
        epoch, rank = divmod(rank, int(self._quotas[source]))
        before = self._before[:, source]
        block = int(np.searchsorted(before, rank, side="right")) - 1
        places = np.flatnonzero(self._block(epoch, block) == source)
        place = int(self._starts[block] + places[rank - int(before[block])])
        return epoch * self._batches + place // self._batch_size

    def _part(self, epoch: int, block: int, start: int, stop: int) -> list[Key]:
        sources = self._block(epoch, block)
        part = sources[start:stop]
        keys = [Key(0, 0)] * len(part)
        for number in np.unique(part).tolist():
            places = np.flatnonzero(part == number)
            before = int(np.count_nonzero(sources[:start] == number))
            first = epoch * int(self._quotas[number]) + int(self._before[block, number]) + before
            found = self._sources[number].keys(first, len(places))
            for place, key in zip(places.tolist(), found, strict=True):
                keys[place] = key
        return keys

    def _block(self, epoch: int, block: int) -> npt.NDArray[np.int64]:
        """The source of each sample of a block."""
        if self._current is None or self._current[0] != (epoch, block):
            counts = self._before[block + 1] - self._before[block]
            sources = np.repeat(np.arange(len(counts)), counts)
            mixed = generator(self._seed, epoch, _MIXTURE_STREAM, block).permutation(sources)
            self._current = ((epoch, block), mixed)
        return self._current[1]


class _Passes:
    """The endless order of one source, whose records begin at `first`."""

    def __init__(self, shard_sizes: Numbers, window: int, seed: int, first: int) -> None:
        self._sizes, self._window, self._seed, self._first = shard_sizes, window, seed, first
        self._samples = int(shard_sizes.sum())
        self._order: tuple[int, EpochOrder] | None = None

    def keys(self, rank: int, samples: int) -> Sequence[Key]:
        """The keys of so many samples from a rank on, over all passes."""
        keys: list[Key] = []
        while len(keys) < samples:
            number, start = divmod(rank + len(keys), self._samples)
            stop = min(self._samples, start + samples - len(keys))
            positions = self._pass(number)[start:stop] + self._first
            keys += [Key(number, position) for position in positions.tolist()]
        return keys

    def windows(self, rank: int) -> Iterator[tuple[int, Numbers]]:
        """The first rank, at least `rank`, and the shards of each window from a rank on.

        A pass of one window is the only one, as all others need the same shards.
        """
        for number in count(rank // self._samples):
            before, windows = number * self._samples, list(self._pass(number).windows())
            if len(windows) == 1:
                yield rank, windows[0][2]
                return
            for start, stop, shards in windows:
                first = max(before + start, rank)
                if first < before + stop:
                    yield first, shards

    def _pass(self, number: int) -> EpochOrder:
        if self._order is None or self._order[0] != number:
            order = EpochOrder(self._sizes, self._window, self._seed, number)
            self._order = (number, order)
        return self._order[1]


def _all_passes(mixture: Mixture, window: int, seed: int) -> list[_Passes]:
    ends = np.cumsum(mixture.sizes)
    return [
        _Passes(sizes, window, seed + number * _SEEDS, int(end) - int(sizes.sum()))
        for number, (sizes, end) in enumerate(zip(mixture.shard_sizes, ends, strict=True))
    ]

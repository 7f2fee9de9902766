"""Which examples make up each training batch: a function of (seed, iteration), without state."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from virtex.data.dataset import Key

_ORDER_STREAM = 1


class TrainingKeys(Sampler[list[Key]]):
    """The keys of one process's batches, from an iteration on, without end."""

    def __init__(
        self, examples: int, batch_size: int, part: slice, seed: int, first_iteration: int
    ) -> None:
        self._examples = examples
        self._batch_size = batch_size
        self._part = part
        self._seed = seed
        self._first_iteration = first_iteration

    def __iter__(self) -> Iterator[list[Key]]:
        batches = self._examples // self._batch_size
        epoch, first = divmod(self._first_iteration, batches)
        while True:
            order = epoch_order(self._examples, self._seed, epoch)
            for batch in range(first, batches):
                whole = order[batch * self._batch_size : (batch + 1) * self._batch_size]
                yield [Key(epoch, index) for index in whole[self._part].tolist()]
            epoch, first = epoch + 1, 0


def epoch_order(examples: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """A permutation of 0 … `examples` - 1, another for each (`seed`, `epoch`)."""
    # The spawn key keeps the stream apart from those of the examples.
    sequence = np.random.SeedSequence([seed, epoch], spawn_key=(_ORDER_STREAM,))
    return np.random.default_rng(sequence).permutation(examples)

"""What every pretraining task takes and gives; a task is one file of this room.

The loader's half is an `Encoder`: a record becomes an example, examples become a batch. The
device's half is an `Objective`: a batch becomes a `Loss` for each of its `loss_names`; training
minimises the sum of their means. A `Describe` says in words what the objective makes of a batch.
Which tasks there are is known to the configuration and to `build_tasks` alone.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.backbone import Backbone

Batch = Mapping[str, Tensor]
"""`image` (B, 3, H, W) uint8 RGB, `image_id` and `dropout_key` (B,) int64; the task's own tensors.

Every tensor has the examples along its first axis.
"""


class Loss(NamedTuple):
    """A sum of losses and the number of items in it, both scalar tensors.

    Kept apart so that the mean over many batches weighs each item alike, however they are divided.
    A named tuple, as DistributedDataParallel looks for tensors in containers that it knows; of
    another class it would exchange no gradients, without a word.
    """

    total: Tensor
    items: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean loss of an item; zero, not NaN, where there is none."""
        return self.total / self.items.clamp(min=1)


def at_least_float32(logits: Tensor) -> Tensor:
    """`logits`, from which a loss is computed, without what mixed precision took off them."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class Encoder(Protocol):
    """The loader's half of a task; can be pickled, for loader workers."""

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """An example; everything random is drawn from `rng`."""
        ...

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` of one or more examples."""
        ...


class Objective(nn.Module):
    """The device's half of a task: `forward` gives the losses of a `Batch` by name."""

    loss_names: tuple[str, ...]
    """The keys of what `forward` gives, also where a process has no batch."""

    def __init__(self, visual: Backbone) -> None:
        super().__init__()
        self.visual = visual

    @abstractmethod
    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """The number of items in each loss of a batch, int64 scalars, without computing it."""


@dataclass(frozen=True)
class Description:
    """What a model says of an image and what it should say, for a person."""

    predicted: str
    given: str


Describe = Callable[[Batch], list[Description]]

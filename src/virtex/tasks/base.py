"""What every pretraining task gives and takes: batches in, named losses out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from virtex.data.records import Record
from virtex.data.transforms import Augmented

Batch = Mapping[str, Tensor]
"""`image` (B, 3, H, W) uint8 RGB and `image_id` (B,) int64; the task's own tensors beside them."""


@dataclass(frozen=True)
class Loss:
    """A sum of losses and the number of items in it, both scalar tensors.

    Kept apart so that the mean over many batches weighs each item alike, however they are divided.
    """

    total: Tensor
    count: Tensor

    @property
    def mean(self) -> Tensor:
        """The mean loss of an item; zero, not NaN, where there is none."""
        return self.total / self.count.clamp(min=1)


Losses = Mapping[str, Loss]
"""Named losses; the sum of their means is what training minimises."""


class Encoder(Protocol):
    """The loader's half of a task. Picklable: it travels to the worker processes."""

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """One example: the augmented image and the task's targets."""

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch of examples."""


class Objective(Protocol):
    """The device's half of a task: an `nn.Module` that gives the losses of a batch."""

    visual: nn.Module
    loss_names: tuple[str, ...]

    def __call__(self, batch: Batch) -> Losses:
        """The named losses of a batch on the module's device."""

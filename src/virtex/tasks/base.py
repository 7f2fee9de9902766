"""What every pretraining task takes and gives: a batch, and losses by name.

The loader's half of a task has `encode` and `collate`, the device's half is a module that gives a
`Loss` for each of its `loss_names`; training minimises the sum of their means.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

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

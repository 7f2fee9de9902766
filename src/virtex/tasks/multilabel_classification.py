"""Multilabel classification: which categories of objects are in the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.caption_tokens import image_example
from virtex.tasks.classification import label_batch
from virtex.text.vocabulary import BACKGROUND


@dataclass(frozen=True)
class CategoryEncoder:
    """The categories of the image's objects as labels."""

    def encode(
        self,
        record: Record,
        augmented: Augmented,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, `labels` (k,) int64; k is 0 without objects."""
        labels = torch.tensor(record.categories, dtype=torch.int64)
        return image_example(record, augmented) | {"labels": labels}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with `labels` (B, K) int64, filled up on the right with the background's."""
        return label_batch(examples, BACKGROUND)

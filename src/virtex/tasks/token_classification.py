"""Token classification: which tokens does a caption of the image hold, in no order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.caption_tokens import CaptionTokens, image_example
from virtex.tasks.classification import label_batch


@dataclass(frozen=True)
class TokenLabelEncoder:
    """The tokens of a caption as labels."""

    captions: CaptionTokens
    padding_index: int = 0

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, `labels` (k,) int64, special tokens among them."""
        tokens = self.captions.draw(record, augmented, rng)
        return image_example(record, augmented) | {"labels": torch.tensor(tokens)}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with `labels` (B, K) int64, filled up on the right."""
        return label_batch(examples, self.padding_index)

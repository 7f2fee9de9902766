"""What the loader's halves of several tasks share: images, and a caption as tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.base import TaskSettings
from virtex.text.normalize import normalize_caption, swap_left_right
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class CaptionTokens:
    """One caption of an image, drawn at random or the first, as at most `max_length` tokens."""

    tokenizer: Tokenizer
    max_length: int
    single_caption: bool = False

    def draw(self, record: Record, augmented: Augmented, rng: np.random.Generator) -> list[int]:
        """[SOS], the caption's tokens, [EOS].

        A mirrored image has *left* and *right* swapped in its caption. A long caption is cut on the
        right and then lacks [EOS]: nobody is taught that it ended there.
        """
        choice = 0 if self.single_caption else int(rng.integers(len(record.captions)))
        caption = normalize_caption(record.captions[choice])
        if augmented.mirrored:
            caption = swap_left_right(caption)
        words = self.tokenizer.encode(caption)
        return [self.tokenizer.sos_index, *words, self.tokenizer.eos_index][: self.max_length]


def caption_tokens(tokenizer: Tokenizer, settings: TaskSettings, training: bool) -> CaptionTokens:
    """The captions of a split; only training is restricted to an image's first one."""
    single = settings.single_caption and training
    return CaptionTokens(tokenizer, settings.max_caption_length, single)


def image_example(record: Record, augmented: Augmented) -> dict[str, object]:
    """`image` (H, W, 3) uint8 and `image_id` of an example."""
    return {"image_id": record.image_id, "image": torch.from_numpy(augmented.image)}


def image_batch(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """`image` (B, 3, H, W) uint8, `image_id` and `dropout_key` (B,) int64 of a batch."""
    return {
        "image_id": torch.tensor([example["image_id"] for example in examples]),
        "dropout_key": torch.tensor([example["dropout_key"] for example in examples]),
        # A view with channels-last strides: no copy of the pixels.
        "image": torch.stack([example["image"] for example in examples]).permute(0, 3, 1, 2),
    }


def padded(rows: Sequence[Tensor], padding: int) -> Tensor:
    """(B, T) int64 of rows (t,), filled up on the right to the longest."""
    return pad_sequence(list(rows), batch_first=True, padding_value=padding)

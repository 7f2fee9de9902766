"""Captioning, in one direction or both (VirTex, section 3): predict a caption token by token.

A caption is [SOS] w1 … wn [EOS]; the backward head reads it from the end: [EOS] wn … w1 [SOS].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.backbone import Backbone
from virtex.models.decoder import TransformerDecoder
from virtex.tasks.base import Batch, Loss
from virtex.text.normalize import normalize_caption, swap_left_right
from virtex.text.tokenizer import Tokenizer

BOTH_DIRECTIONS = ("captioning_forward", "captioning_backward")


@dataclass(frozen=True)
class CaptionEncoder:
    """One caption of the image, drawn at random or the first, as at most `max_length` tokens."""

    tokenizer: Tokenizer
    max_length: int
    padding_index: int = 0
    single_caption: bool = False

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, `caption_tokens` (T,) int64.

        A mirrored image has *left* and *right* swapped in its caption. A long caption is cut on the
        right and then lacks [EOS]: nobody is taught that it ended there.
        """
        choice = 0 if self.single_caption else int(rng.integers(len(record.captions)))
        caption = normalize_caption(record.captions[choice])
        if augmented.mirrored:
            caption = swap_left_right(caption)
        words = self.tokenizer.encode(caption)
        tokens = [self.tokenizer.sos_index, *words, self.tokenizer.eos_index][: self.max_length]
        return {
            "image_id": record.image_id,
            "image": torch.from_numpy(augmented.image),
            "caption_tokens": torch.tensor(tokens),
        }

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with the captions and their lengths.

        `caption_tokens` and `reversed_tokens` are (B, T) int64, padded on the right to the longest;
        `caption_lengths` is (B,) int64.
        """
        captions = [example["caption_tokens"] for example in examples]

        def pad(rows: Sequence[Tensor]) -> Tensor:
            return pad_sequence(list(rows), batch_first=True, padding_value=self.padding_index)

        return {
            "image_id": torch.tensor([example["image_id"] for example in examples]),
            # A view with channels-last strides: no copy of the pixels.
            "image": torch.stack([example["image"] for example in examples]).permute(0, 3, 1, 2),
            "caption_tokens": pad(captions),
            "reversed_tokens": pad([caption.flip(0) for caption in captions]),
            "caption_lengths": torch.tensor([len(caption) for caption in captions]),
        }


class Captioning(nn.Module):
    """Cross-entropy of the next token, forward and, with a `backward_textual`, backward.

    The two heads share their projection of the grid; it is computed once.
    """

    def __init__(
        self,
        visual: Backbone,
        textual: TransformerDecoder,
        backward_textual: TransformerDecoder | None = None,
    ) -> None:
        super().__init__()
        self.visual = visual
        self.textual = textual
        self.backward_textual = backward_textual

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The keys of what `forward` gives."""
        forward_only = self.backward_textual is None
        return ("captioning_forward",) if forward_only else BOTH_DIRECTIONS

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """`captioning_forward` and `captioning_backward`, summed over the tokens to predict."""
        projected = self.textual.project(self.visual(batch["image"]))
        lengths = batch["caption_lengths"]
        tokens = batch["caption_tokens"]
        losses = {"captioning_forward": self._loss(self.textual, projected, tokens, lengths)}
        if self.backward_textual is not None:
            tokens = batch["reversed_tokens"]
            loss = self._loss(self.backward_textual, projected, tokens, lengths)
            losses["captioning_backward"] = loss
        return losses

    @staticmethod
    def _loss(
        textual: TransformerDecoder, projected: Tensor, tokens: Tensor, lengths: Tensor
    ) -> Loss:
        padding = textual.embedding.padding_index
        # The last token has no successor to predict.
        logits = textual(projected, tokens[:, :-1], lengths - 1)
        targets = tokens[:, 1:]
        total = F.cross_entropy(
            logits.flatten(0, 1).float(),
            targets.flatten(),
            ignore_index=padding,
            reduction="sum",
        )
        return Loss(total, (targets != padding).sum())

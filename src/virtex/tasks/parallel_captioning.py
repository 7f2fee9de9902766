"""Captioning with parallel prediction (CapPa; Tschannen et al., 2023, arXiv 2306.07915).

In a share of the captions the head reads [MASK] at every position and sees all of them, so that it
predicts every token from the image alone; in the others it predicts the next token from those
before it, as in captioning. The same head then captions images token by token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.backbone import Backbone
from virtex.models.decoder import TransformerDecoder, causal_mask, decoder_pair, padding_mask
from virtex.tasks.base import Batch, Objective, Task, token_cross_entropy
from virtex.tasks.caption_losses import GridMemory, sum_over_captions
from virtex.tasks.caption_tokens import (
    CaptionTokens,
    caption_batch,
    caption_tokens,
    dropout_keys,
    image_example,
    of_captions,
)
from virtex.tasks.captioning import caption_predictor
from virtex.text.tokenizer import Tokenizer

PARALLEL_SHARE = 0.75
"""The share of captions that are predicted in parallel; the value of the paper, section 3."""


@dataclass(frozen=True)
class ParallelCaptionEncoder:
    """Captions, each to be predicted in parallel with the probability `parallel_share`."""

    captions: CaptionTokens
    parallel_share: float = PARALLEL_SHARE

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`; lists of `caption_tokens` and `parallel`, bool."""
        captions = self.captions.draw(record, augmented, rng)
        return image_example(record, augmented) | {
            "caption_tokens": [torch.tensor(tokens) for tokens in captions],
            "parallel": (rng.random(len(captions)) < self.parallel_share).tolist(),
            "dropout_key": dropout_keys(len(captions), rng),
        }

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """As `caption_batch`, with `parallel` (N,) bool."""
        parallel = torch.tensor(of_captions(examples, "parallel"))
        return caption_batch(examples, self.captions.padding_index) | {"parallel": parallel}


class ParallelCaptioning(Objective):
    """Cross-entropy of all tokens but the first, given only [MASK] or the tokens before them."""

    main_losses = ("parallel_captioning",)

    def __init__(
        self,
        visual: Backbone,
        textual: TransformerDecoder,
        mask_index: int,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(visual)
        self.textual = textual
        self.mask_index = mask_index
        self.label_smoothing = label_smoothing

    def main_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The tokens to predict, all but the first of each row."""
        targets = batch["caption_tokens"][:, 1:]
        return {"parallel_captioning": (targets != self.textual.embedding.padding_index).sum()}

    def main_totals(self, grid: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`parallel_captioning`, summed over the tokens to predict."""
        memory = self.textual.keys_values(self.textual.project(grid))
        return sum_over_captions(self, [memory], batch, self._losses)

    def _losses(self, memories: Sequence[GridMemory], batch: Batch) -> dict[str, Tensor]:
        tokens, parallel = batch["caption_tokens"], batch["parallel"]
        # The last token has no successor to predict.
        lengths, positions = batch["caption_lengths"] - 1, tokens.shape[1] - 1
        inside = padding_mask(lengths, positions)  # (N, 1, 1, T - 1)
        masked = parallel[:, None] & inside.flatten(1)
        visible = causal_mask(lengths, positions) | (inside & parallel[:, None, None, None])
        logits = self.textual.logits(
            memories[0], tokens[:, :-1].masked_fill(masked, self.mask_index), visible
        )
        padding = self.textual.embedding.padding_index
        smoothing = self.label_smoothing if self.training else 0.0
        total = token_cross_entropy(logits, tokens[:, 1:], padding, smoothing)
        return {"parallel_captioning": total}


PARALLEL_CAPTIONING: Task[ParallelCaptioning, Tokenizer] = Task(
    labels="captions",
    head="decoder",
    main_encoder=lambda tokenizer, settings, training: ParallelCaptionEncoder(
        caption_tokens(tokenizer, settings, training)
    ),
    main_objective=lambda visual, settings: ParallelCaptioning(
        visual,
        decoder_pair(settings.decoder_settings)[0],
        settings.mask_index,
        settings.label_smoothing,
    ),
    sample_predictor=lambda objective, tokenizer, settings: caption_predictor(
        objective.visual, objective.textual, tokenizer, settings
    ),
    captioning_head=lambda objective: objective.textual,
)

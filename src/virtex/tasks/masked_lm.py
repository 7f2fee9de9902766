"""Masked language modelling: fill in words of a caption from the image and the words around them.

As in BERT (Devlin et al., 2019, section 3.1) a share of a caption's tokens is chosen; most of them
become [MASK], some another token, and the rest stay; the originals of all of them are predicted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.backbone import Backbone
from virtex.models.decoder import TransformerDecoder, decoder_pair, padding_mask
from virtex.models.modes import evaluating
from virtex.tasks.base import (
    Batch,
    Masking,
    Objective,
    Sample,
    Task,
    token_cross_entropy,
)
from virtex.tasks.caption_losses import GridMemory, sum_over_captions
from virtex.tasks.caption_tokens import (
    CaptionTokens,
    caption_batch,
    caption_tokens,
    dropout_keys,
    image_example,
    of_captions,
    padded,
)
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class MaskedCaptionEncoder:
    """Captions with tokens to predict, none of them special or unknown."""

    captions: CaptionTokens
    masking: Masking

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`; lists of `caption_tokens` and `masked_labels`.

        Both are (t,) int64 for each caption. A label is the original token where it is to be
        predicted, else the padding index.
        """
        captions = self.captions.draw(record, augmented, rng)
        tokens, labels = zip(*(self._masked(caption, rng) for caption in captions), strict=True)
        return image_example(record, augmented) | {
            "caption_tokens": tokens,
            "masked_labels": labels,
            "dropout_key": dropout_keys(len(captions), rng),
        }

    def _masked(self, caption: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        tokenizer, masking = self.captions.tokenizer, self.masking
        tokens = np.array(caption)
        ordinary = np.flatnonzero(~np.isin(tokens, list(tokenizer.special_ids)))
        count = math.ceil(len(ordinary) * masking.mask_proportion)
        chosen = rng.choice(ordinary, count, replace=False)
        labels = np.full_like(tokens, self.captions.padding_index)
        labels[chosen] = tokens[chosen]
        fate = rng.random(count)
        masked = fate < masking.mask_probability
        replaced = ~masked & (fate < masking.mask_probability + masking.replace_probability)
        tokens[chosen[masked]] = tokenizer.mask_index
        tokens[chosen[replaced]] = rng.choice(tokenizer.ordinary_ids, int(replaced.sum()))
        return torch.from_numpy(tokens), torch.from_numpy(labels)

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """As `caption_batch`, with `masked_labels` (N, T) int64, padded on the right as well."""
        padding = self.captions.padding_index
        labels = padded(of_captions(examples, "masked_labels"), padding)
        return caption_batch(examples, padding) | {"masked_labels": labels}


class MaskedLanguageModel(Objective):
    """Cross-entropy of the chosen tokens; each position sees all tokens."""

    main_losses = ("masked_lm",)

    def __init__(
        self, visual: Backbone, textual: TransformerDecoder, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(visual)
        self.textual = textual
        self.label_smoothing = label_smoothing

    def main_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The tokens to predict."""
        padding = self.textual.embedding.padding_index
        return {"masked_lm": (batch["masked_labels"] != padding).sum()}

    def logits(self, grid: Tensor, batch: Batch) -> Tensor:
        """(B, T, V) for each position of `caption_tokens`, one caption an image."""
        memory = self.textual.keys_values(self.textual.project(grid))
        return self._caption_logits(memory, batch)

    def _caption_logits(self, memory: GridMemory, batch: Batch) -> Tensor:
        tokens = batch["caption_tokens"]
        mask = padding_mask(batch["caption_lengths"], tokens.shape[1])
        return self.textual.logits(memory, tokens, mask)

    def main_totals(self, grid: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`masked_lm`, summed over the tokens to predict."""
        memory = self.textual.keys_values(self.textual.project(grid))
        return sum_over_captions(self, [memory], batch, self._losses)

    def _losses(self, memories: Sequence[GridMemory], batch: Batch) -> dict[str, Tensor]:
        padding = self.textual.embedding.padding_index
        logits = self._caption_logits(memories[0], batch)
        smoothing = self.label_smoothing if self.training else 0.0
        total = token_cross_entropy(logits, batch["masked_labels"], padding, smoothing)
        return {"masked_lm": total}


def predict_masked(
    objective: MaskedLanguageModel, tokenizer: Tokenizer, batch: Batch
) -> list[Sample]:
    """Captions with the model's predictions at the chosen positions, and the original captions."""
    tokens, labels = batch["caption_tokens"], batch["masked_labels"]
    chosen = labels != objective.textual.embedding.padding_index
    with evaluating(objective):
        grid = objective.visual(batch["image"])
        likeliest = objective.logits(grid, batch).argmax(dim=-1)
    predictions = torch.where(chosen, likeliest, tokens).tolist()
    targets = torch.where(chosen, labels, tokens).tolist()
    return [
        Sample(tokenizer.decode(prediction), tokenizer.decode(target))
        for prediction, target in zip(predictions, targets, strict=True)
    ]


MASKED_LM: Task[MaskedLanguageModel, Tokenizer] = Task(
    labels="captions",
    head="decoder",
    main_encoder=lambda tokenizer, settings, training: MaskedCaptionEncoder(
        caption_tokens(tokenizer, settings, training), settings.masking
    ),
    main_objective=lambda visual, settings: MaskedLanguageModel(
        visual, decoder_pair(settings.decoder_settings)[0], settings.label_smoothing
    ),
    sample_predictor=lambda objective, tokenizer, _: (
        lambda batch: predict_masked(objective, tokenizer, batch)
    ),
    captioning_head=None,
)

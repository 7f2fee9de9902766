"""Masked language modelling: fill in words of a caption from the image and the words around them.

As in BERT (Devlin et al., 2019, section 3.1) a share of a caption's tokens is chosen; most of them
become [MASK], some another token, the rest stay; the original is predicted at all of them.
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
from virtex.models.dropout import draw_dropout
from virtex.models.modes import evaluating
from virtex.tasks.base import (
    Batch,
    Loss,
    Objective,
    Sample,
    Task,
    TaskSettings,
    token_cross_entropy,
)
from virtex.tasks.caption_tokens import (
    CaptionTokens,
    caption_tokens,
    image_batch,
    image_example,
    padded,
)
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class MaskedCaptionEncoder:
    """A caption with tokens to guess.

    `mask_proportion` of its tokens, rounded up, are chosen. Each becomes [MASK] with
    `mask_probability`, another token, drawn from all ordinary ones, with `replace_probability`.
    Special and unknown tokens are neither chosen nor put in.
    """

    captions: CaptionTokens
    mask_proportion: float = 0.15
    mask_probability: float = 0.85
    replace_probability: float = 0.10
    padding_index: int = 0

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, `caption_tokens` and `masked_labels`, (T,) int64.

        A label is the original token where it is to be predicted, else the padding index.
        """
        tokenizer = self.captions.tokenizer
        tokens = np.array(self.captions.draw(record, augmented, rng))
        ordinary = np.flatnonzero(~np.isin(tokens, list(tokenizer.special_ids)))
        count = math.ceil(len(ordinary) * self.mask_proportion)
        chosen = rng.choice(ordinary, count, replace=False)
        labels = np.full_like(tokens, self.padding_index)
        labels[chosen] = tokens[chosen]
        fate = rng.random(count)
        masked = fate < self.mask_probability
        replaced = ~masked & (fate < self.mask_probability + self.replace_probability)
        tokens[chosen[masked]] = tokenizer.mask_index
        tokens[chosen[replaced]] = rng.choice(tokenizer.ordinary_ids, int(replaced.sum()))
        return image_example(record, augmented) | {
            "caption_tokens": torch.from_numpy(tokens),
            "masked_labels": torch.from_numpy(labels),
        }

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with `caption_tokens` and `masked_labels` (B, T), `caption_lengths` (B,)."""
        captions = [example["caption_tokens"] for example in examples]
        labels = [example["masked_labels"] for example in examples]
        return image_batch(examples) | {
            "caption_tokens": padded(captions, self.padding_index),
            "masked_labels": padded(labels, self.padding_index),
            "caption_lengths": torch.tensor([len(caption) for caption in captions]),
        }


class MaskedLanguageModel(Objective):
    """Cross-entropy of the chosen tokens; each position sees all tokens."""

    loss_names = ("masked_lm",)

    def __init__(self, visual: Backbone, textual: TransformerDecoder) -> None:
        super().__init__(visual)
        self.textual = textual

    def num_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The tokens to predict."""
        padding = self.textual.embedding.padding_index
        return {"masked_lm": (batch["masked_labels"] != padding).sum()}

    def logits(self, batch: Batch) -> Tensor:
        """(B, T, V) for each position of `caption_tokens`."""
        projected = self.textual.project(self.visual(batch["image"]))
        tokens = batch["caption_tokens"]
        mask = padding_mask(batch["caption_lengths"], tokens.shape[1])
        return self.textual(projected, tokens, mask)

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """`masked_lm`, summed over the tokens to predict."""
        draw_dropout(self, batch["dropout_key"])
        padding = self.textual.embedding.padding_index
        total = token_cross_entropy(self.logits(batch), batch["masked_labels"], padding)
        return {"masked_lm": Loss(total, self.num_targets(batch)["masked_lm"])}


@dataclass(frozen=True)
class MaskedCaptionPredictor:
    """Captions with the model's guesses at the chosen places, and as they were."""

    objective: MaskedLanguageModel
    tokenizer: Tokenizer

    def __call__(self, batch: Batch) -> list[Sample]:
        tokens, labels = batch["caption_tokens"], batch["masked_labels"]
        chosen = labels != self.objective.textual.embedding.padding_index
        with evaluating(self.objective):
            guesses = self.objective.logits(batch).argmax(dim=-1)
        predictions = torch.where(chosen, guesses, tokens).tolist()
        targets = torch.where(chosen, labels, tokens).tolist()
        decode = self.tokenizer.decode
        return [
            Sample(decode(one), decode(other))
            for one, other in zip(predictions, targets, strict=True)
        ]


def _encoder(tokenizer: Tokenizer, settings: TaskSettings, training: bool) -> MaskedCaptionEncoder:
    masking = settings.masking
    return MaskedCaptionEncoder(
        caption_tokens(tokenizer, settings, training),
        mask_proportion=masking.mask_proportion,
        mask_probability=masking.mask_probability,
        replace_probability=masking.replace_probability,
        padding_index=settings.padding_index,
    )


def _objective(visual: Backbone, settings: TaskSettings) -> MaskedLanguageModel:
    textual, _ = decoder_pair(settings.decoder_settings)
    return MaskedLanguageModel(visual, textual)


MASKED_LM = Task(
    labels="captions",
    head="decoder",
    encoder=_encoder,
    objective=_objective,
    sample_predictor=lambda objective, tokenizer, _: MaskedCaptionPredictor(objective, tokenizer),
    captioning_head=None,
)

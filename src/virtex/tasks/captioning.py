"""Captioning, in one direction or both (VirTex, section 3): predict a caption token by token.

A caption is [SOS] w1 … wn [EOS]; the backward head reads it from the end: [EOS] wn … w1 [SOS].
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.decoding.captioner import Captioner
from virtex.models.backbone import Backbone
from virtex.models.decoder import TransformerDecoder, causal_mask, decoder_pair
from virtex.models.dropout import draw_dropout
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

BOTH_DIRECTIONS = ("captioning_forward", "captioning_backward")


@dataclass(frozen=True)
class CaptionEncoder:
    """A caption of the image in both directions."""

    captions: CaptionTokens
    padding_index: int = 0

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, `caption_tokens` (T,) int64."""
        tokens = self.captions.draw(record, augmented, rng)
        return image_example(record, augmented) | {"caption_tokens": torch.tensor(tokens)}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with the captions and their lengths.

        `caption_tokens` and `reversed_tokens` are (B, T) int64, padded on the right to the longest;
        `caption_lengths` is (B,) int64.
        """
        captions = [example["caption_tokens"] for example in examples]
        reverse = [caption.flip(0) for caption in captions]
        return image_batch(examples) | {
            "caption_tokens": padded(captions, self.padding_index),
            "reversed_tokens": padded(reverse, self.padding_index),
            "caption_lengths": torch.tensor([len(caption) for caption in captions]),
        }


class Captioning(Objective):
    """Cross-entropy of the next token, forward and, with a `backward_textual`, backward.

    The two heads share their projection of the grid; it is computed once.
    """

    def __init__(
        self,
        visual: Backbone,
        textual: TransformerDecoder,
        backward_textual: TransformerDecoder | None = None,
    ) -> None:
        super().__init__(visual)
        self.textual = textual
        self.backward_textual = backward_textual
        forward_only = backward_textual is None
        self.loss_names = ("captioning_forward",) if forward_only else BOTH_DIRECTIONS

    def num_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The tokens to predict, all but the first of each row."""
        padding = self.textual.embedding.padding_index
        names = ("caption_tokens", "reversed_tokens")
        return {
            loss: (batch[name][:, 1:] != padding).sum()
            for loss, name in zip(self.loss_names, names, strict=False)
        }

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """`captioning_forward` and `captioning_backward`, summed over the tokens to predict."""
        draw_dropout(self, batch["dropout_key"])
        targets = self.num_targets(batch)
        projected = self.textual.project(self.visual(batch["image"]))
        lengths = batch["caption_lengths"]
        tokens = batch["caption_tokens"]
        total = self._total(self.textual, projected, tokens, lengths)
        losses = {"captioning_forward": Loss(total, targets["captioning_forward"])}
        if self.backward_textual is not None:
            tokens = batch["reversed_tokens"]
            total = self._total(self.backward_textual, projected, tokens, lengths)
            losses["captioning_backward"] = Loss(total, targets["captioning_backward"])
        return losses

    @staticmethod
    def _total(
        textual: TransformerDecoder, projected: Tensor, tokens: Tensor, lengths: Tensor
    ) -> Tensor:
        # The last token has no successor to predict.
        mask = causal_mask(lengths - 1, tokens.shape[1] - 1)
        logits = textual(projected, tokens[:, :-1], mask)
        return token_cross_entropy(logits, tokens[:, 1:], textual.embedding.padding_index)


@dataclass(frozen=True)
class CaptionPredictor:
    """The best caption of each image of a batch, and the one that it came with."""

    captioner: Captioner

    def __call__(self, batch: Batch) -> list[Sample]:
        found = self.captioner.caption(batch["image"], batch["image_id"].tolist())
        predictions = [captions[0].text for captions in found]
        targets = map(self.captioner.tokenizer.decode, batch["caption_tokens"].tolist())
        return [Sample(*texts) for texts in zip(predictions, targets, strict=True)]


def _encoder(tokenizer: Tokenizer, settings: TaskSettings, training: bool) -> CaptionEncoder:
    return CaptionEncoder(caption_tokens(tokenizer, settings, training), settings.padding_index)


def caption_predictor(
    visual: Backbone, textual: TransformerDecoder, tokenizer: Tokenizer, settings: TaskSettings
) -> CaptionPredictor:
    """The predictor of a model whose head captions by the configured strategy."""
    captioner = Captioner(
        visual=visual,
        textual=textual,
        tokenizer=tokenizer,
        strategy=settings.strategy,
        max_tokens=settings.max_tokens,
    )
    return CaptionPredictor(captioner)


def _both_directions(visual: Backbone, settings: TaskSettings) -> Captioning:
    return Captioning(visual, *decoder_pair(settings.decoder_settings))


def _forward_only(visual: Backbone, settings: TaskSettings) -> Captioning:
    forward, _ = decoder_pair(settings.decoder_settings)
    return Captioning(visual, forward)


BICAPTIONING = Task(
    labels="captions",
    head="decoder",
    encoder=_encoder,
    objective=_both_directions,
    sample_predictor=lambda objective, tokenizer, settings: caption_predictor(
        objective.visual, objective.textual, tokenizer, settings
    ),
    captioning_head=lambda objective: objective.textual,
)
CAPTIONING = replace(BICAPTIONING, objective=_forward_only)

"""Captioning, in one direction or both (VirTex, section 3): predict a caption token by token.

A caption is [SOS] w1 … wn [EOS]; the backward head reads it from the end: [EOS] wn … w1 [SOS].
"""

from collections.abc import Iterator, Mapping, Sequence
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
from virtex.tasks.base import (
    Batch,
    Objective,
    Sample,
    SamplePredictor,
    Task,
    TaskSettings,
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
class CaptionEncoder:
    """Captions of the image in both directions."""

    captions: CaptionTokens

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`; a list of `caption_tokens`, each (t,) int64."""
        captions = self.captions.draw(record, augmented, rng)
        return image_example(record, augmented) | {
            "caption_tokens": [torch.tensor(tokens) for tokens in captions],
            "dropout_key": dropout_keys(len(captions), rng),
        }

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """As `caption_batch`, with `reversed_tokens` (N, T) int64, padded on the right as well."""
        reverse = [caption.flip(0) for caption in of_captions(examples, "caption_tokens")]
        padding = self.captions.padding_index
        return caption_batch(examples, padding) | {"reversed_tokens": padded(reverse, padding)}


class Captioning(Objective):
    """Cross-entropy of the next token, forward and, with a `backward_textual`, backward.

    The two heads share their projection of the grid; it is computed once. `label_smoothing` is for
    training alone.
    """

    def __init__(
        self,
        visual: Backbone,
        textual: TransformerDecoder,
        backward_textual: TransformerDecoder | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(visual)
        self.textual = textual
        self.backward_textual = backward_textual
        self.label_smoothing = label_smoothing
        self.main_losses = ("captioning_forward",)
        if backward_textual is not None:
            self.main_losses += ("captioning_backward",)

    def main_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The tokens to predict, all but the first of each row."""
        padding = self.textual.embedding.padding_index
        return {
            name: (tokens[:, 1:] != padding).sum() for name, _, tokens in self._directions(batch)
        }

    def main_totals(self, grid: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`captioning_forward` and `captioning_backward`, summed over the tokens to predict."""
        projected = self.textual.project(grid)
        memories = [head.keys_values(projected) for _, head, _ in self._directions(batch)]
        return sum_over_captions(self, memories, batch, self._losses)

    def _losses(self, memories: Sequence[GridMemory], batch: Batch) -> dict[str, Tensor]:
        lengths = batch["caption_lengths"]
        smoothing = self.label_smoothing if self.training else 0.0
        return {
            name: next_token_loss(head, memory, tokens, lengths, smoothing)
            for memory, (name, head, tokens) in zip(memories, self._directions(batch), strict=True)
        }

    def _directions(self, batch: Batch) -> Iterator[tuple[str, TransformerDecoder, Tensor]]:
        """The loss, the head and the tokens (N, T) of each direction."""
        yield "captioning_forward", self.textual, batch["caption_tokens"]
        if self.backward_textual is not None:
            yield "captioning_backward", self.backward_textual, batch["reversed_tokens"]


def next_token_loss(
    textual: TransformerDecoder,
    memory: GridMemory,
    tokens: Tensor,
    lengths: Tensor,
    smoothing: float = 0.0,
) -> Tensor:
    """The cross-entropy of each token given those before it, summed over tokens (N, T) int64."""
    # The last token has no successor to predict.
    mask = causal_mask(lengths - 1, tokens.shape[1] - 1)
    logits = textual.logits(memory, tokens[:, :-1], mask)
    padding = textual.embedding.padding_index
    return token_cross_entropy(logits, tokens[:, 1:], padding, smoothing)


def caption_predictor(
    visual: Backbone, textual: TransformerDecoder, tokenizer: Tokenizer, settings: TaskSettings
) -> SamplePredictor:
    """The predictor of a model whose head captions images by the configured strategy.

    Its samples are the best caption of each image and, as the target, the one in the batch.
    """
    captioner = Captioner(visual, textual, tokenizer, settings.strategy, settings.max_tokens)

    def predict(batch: Batch) -> list[Sample]:
        found = captioner.caption(batch["image"], batch["image_id"].tolist())
        targets = map(tokenizer.decode, batch["caption_tokens"].tolist())
        pairs = zip(found, targets, strict=True)
        return [Sample(captions[0].text, target) for captions, target in pairs]

    return predict


BICAPTIONING: Task[Captioning, Tokenizer] = Task(
    labels="captions",
    head="decoder",
    main_encoder=lambda tokenizer, settings, training: CaptionEncoder(
        caption_tokens(tokenizer, settings, training)
    ),
    main_objective=lambda visual, settings: Captioning(
        visual, *decoder_pair(settings.decoder_settings), settings.label_smoothing
    ),
    sample_predictor=lambda objective, tokenizer, settings: caption_predictor(
        objective.visual, objective.textual, tokenizer, settings
    ),
    captioning_head=lambda objective: objective.textual,
)
CAPTIONING = replace(
    BICAPTIONING,
    main_objective=lambda visual, settings: Captioning(
        visual,
        decoder_pair(settings.decoder_settings)[0],
        label_smoothing=settings.label_smoothing,
    ),
)

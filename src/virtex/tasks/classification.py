"""Classification into a set of labels: the tokens of a caption, or the categories of objects.

The target is the uniform distribution over the labels of an image (Mahajan et al., 2018).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.backbone import Backbone
from virtex.models.decoder import initialise
from virtex.models.heads import LabelHead
from virtex.models.modes import evaluating
from virtex.tasks.base import (
    Batch,
    Encoder,
    Loss,
    Objective,
    Sample,
    Task,
    TaskSettings,
    at_least_float32,
)
from virtex.tasks.caption_tokens import (
    CaptionTokens,
    caption_tokens,
    image_batch,
    image_example,
    padded,
)
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import BACKGROUND, Categories

_SHOWN = 5


class LabelSetClassification(Objective):
    """Cross-entropy against the uniform distribution over an image's distinct labels.

    Labels in `ignored` are none; they also fill up short rows.
    """

    loss_names = ("classification",)
    ignored: Tensor

    def __init__(self, visual: Backbone, textual: LabelHead, ignored: Sequence[int]) -> None:
        super().__init__(visual)
        self.textual = textual
        self.register_buffer("ignored", torch.tensor(ignored), persistent=False)

    def num_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The images with a label."""
        labelled = ~torch.isin(batch["labels"], self.ignored)
        return {"classification": labelled.any(dim=1).sum()}

    def forward(self, batch: Batch) -> dict[str, Loss]:
        """`classification`, summed over the images with a label; `labels` is (B, K) int64."""
        logits = at_least_float32(self.textual(self.visual(batch["image"])))
        given = torch.zeros_like(logits).scatter_(1, batch["labels"], 1.0)
        given = given.index_fill(1, self.ignored, 0.0)
        labels = given.sum(dim=1).clamp(min=1)
        costs = -(logits.log_softmax(dim=1) * given).sum(dim=1) / labels
        return {"classification": Loss(costs.sum(), self.num_targets(batch)["classification"])}


def _label_batch(examples: Sequence[Mapping[str, Any]], padding: int) -> dict[str, Tensor]:
    """A `Batch` of examples with `labels` (k,) int64; here they are (B, K), filled up."""
    return image_batch(examples) | {
        "labels": padded([example["labels"] for example in examples], padding)
    }


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
        return _label_batch(examples, self.padding_index)


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
        return _label_batch(examples, BACKGROUND)


@dataclass(frozen=True)
class LabelPredictor:
    """The names of the likeliest labels, and of those given; `name` gives that of an index."""

    objective: LabelSetClassification
    name: Callable[[int], str]

    def __call__(self, batch: Batch) -> list[Sample]:
        ignored = set(self.objective.ignored.tolist())
        with evaluating(self.objective):
            logits = self.objective.textual(self.objective.visual(batch["image"]))
            logits = logits.index_fill(1, self.objective.ignored, -torch.inf)
            likeliest = logits.topk(min(_SHOWN, logits.shape[1] - len(ignored))).indices
        targets = [sorted(set(row) - ignored) for row in batch["labels"].tolist()]
        return [
            Sample(*(", ".join(map(self.name, labels)) or "none" for labels in pair))
            for pair in zip(likeliest.tolist(), targets, strict=True)
        ]


def _token_encoder(tokenizer: Tokenizer, settings: TaskSettings, training: bool) -> Encoder:
    captions = caption_tokens(tokenizer, settings, training)
    return TokenLabelEncoder(captions, settings.padding_index)


def _objective(
    visual: Backbone, settings: TaskSettings, ignored: Sequence[int]
) -> LabelSetClassification:
    head = LabelHead(settings.feature_size, settings.vocab_size)
    initialise(head, settings.initial_std)
    return LabelSetClassification(visual, head, ignored)


def _category_predictor(
    objective: LabelSetClassification, categories: Categories, _: TaskSettings
) -> LabelPredictor:
    return LabelPredictor(objective, categories.name)


TOKEN_CLASSIFICATION = Task(
    labels="captions",
    head="linear",
    encoder=_token_encoder,
    objective=lambda visual, settings: _objective(visual, settings, settings.special_ids),
    sample_predictor=lambda objective, tokenizer, _: LabelPredictor(objective, tokenizer.token),
    captioning_head=None,
)
MULTILABEL_CLASSIFICATION = Task(
    labels="categories",
    head="linear",
    encoder=lambda *_: CategoryEncoder(),
    objective=lambda visual, settings: _objective(visual, settings, (BACKGROUND,)),
    sample_predictor=_category_predictor,
    captioning_head=None,
)

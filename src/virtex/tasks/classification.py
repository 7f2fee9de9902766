"""Classification into a set of labels: the tokens of a caption, or the categories of objects.

The target is a distribution over the labels of an image; see `label_targets`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
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
    Objective,
    Sample,
    Task,
    TaskSettings,
)
from virtex.tasks.caption_tokens import (
    CaptionTokens,
    caption_tokens,
    image_batch,
    image_example,
    padded,
)
from virtex.tasks.label_targets import LabelCounts, LabelTargets
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import BACKGROUND, Categories

_SHOWN = 5


class LabelSetClassification(Objective):
    """Cross-entropy against a distribution over an image's distinct labels."""

    main_losses = ("classification",)

    def __init__(self, visual: Backbone, textual: LabelHead, targets: LabelTargets) -> None:
        super().__init__(visual)
        self.textual = textual
        self.targets = targets

    def main_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The images with a label."""
        return {"classification": self.targets.num_images(batch["labels"])}

    def main_totals(self, grid: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`classification`, summed over the images with a label; `labels` is (B, K) int64."""
        total = self.targets.cross_entropy(self.textual(grid), batch["labels"])
        return {"classification": total}


def _label_batch(examples: Sequence[Mapping[str, Any]], padding: int) -> dict[str, Tensor]:
    """A `Batch` of examples with `labels` (k,) int64, which are padded on the right to (B, K)."""
    return image_batch(examples) | {
        "labels": padded([example["labels"] for example in examples], padding)
    }


@dataclass(frozen=True)
class TokenLabelEncoder:
    """The tokens of the drawn captions as labels."""

    captions: CaptionTokens

    def encode(
        self, record: Record, augmented: Augmented, rng: np.random.Generator
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, `labels` (k,) int64, special tokens among them."""
        tokens = chain.from_iterable(self.captions.draw(record, augmented, rng))
        return image_example(record, augmented) | {"labels": torch.tensor(list(tokens))}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with `labels` (B, K) int64, padded on the right."""
        return _label_batch(examples, self.captions.padding_index)


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
        """A `Batch` with `labels` (B, K) int64, padded on the right with the background."""
        return _label_batch(examples, BACKGROUND)


def predict_labels(
    objective: LabelSetClassification, name: Callable[[int], str], batch: Batch
) -> list[Sample]:
    """The names of the likeliest labels and of the target labels; `name` maps an index to one."""
    ignored = set(objective.targets.ignored.tolist())
    with evaluating(objective):
        logits = objective.textual(objective.visual(batch["image"]))
        logits = logits.index_fill(1, objective.targets.ignored, -torch.inf)
        likeliest = logits.topk(min(_SHOWN, logits.shape[1] - len(ignored))).indices
    targets = [sorted(set(row) - ignored) for row in batch["labels"].tolist()]

    def text(labels: Sequence[int]) -> str:
        return ", ".join(map(name, labels)) or "none"

    pairs = zip(likeliest.tolist(), targets, strict=True)
    return [Sample(text(prediction), text(target)) for prediction, target in pairs]


def _objective(
    visual: Backbone, settings: TaskSettings, targets: LabelTargets
) -> LabelSetClassification:
    head = LabelHead(settings.feature_size, settings.vocab_size)
    initialise(head, settings.initial_std)
    return LabelSetClassification(visual, head, targets)


def _token_objective(visual: Backbone, settings: TaskSettings) -> LabelSetClassification:
    counts = LabelCounts(settings.vocab_size) if settings.weighted_tokens else None
    return _objective(visual, settings, LabelTargets(settings.special_ids, counts))


TOKEN_CLASSIFICATION: Task[LabelSetClassification, Tokenizer] = Task(
    labels="captions",
    head="linear",
    main_encoder=lambda tokenizer, settings, training: TokenLabelEncoder(
        caption_tokens(tokenizer, settings, training)
    ),
    main_objective=_token_objective,
    sample_predictor=lambda objective, tokenizer, _: (
        lambda batch: predict_labels(objective, tokenizer.token, batch)
    ),
    captioning_head=None,
)
MULTILABEL_CLASSIFICATION: Task[LabelSetClassification, Categories] = Task(
    labels="categories",
    head="linear",
    main_encoder=lambda *_: CategoryEncoder(),
    main_objective=lambda visual, settings: _objective(
        visual, settings, LabelTargets((BACKGROUND,))
    ),
    sample_predictor=lambda objective, categories, _: (
        lambda batch: predict_labels(objective, categories.name, batch)
    ),
    captioning_head=None,
)

"""Classification of labelled images, for fine-tuning a backbone or a linear layer on it.

Images have one label each, or any number of several. A linear layer on the mean of the grid
predicts them; the weights of the backbone are fixed with `MODEL.VISUAL.FROZEN`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.backbone import Backbone
from virtex.models.decoder import initialise
from virtex.models.heads import LabelHead
from virtex.models.modes import evaluating
from virtex.tasks.base import Batch, Objective, Sample, Task, TaskSettings, at_least_float32
from virtex.tasks.caption_tokens import image_batch, image_example
from virtex.text.vocabulary import Classes

_SHOWN = 5


class ImageClassification(Objective):
    """Cross-entropy of one label, or binary cross-entropy of several labels an image.

    `labels` of a batch is (B,) int64, the index of each image's class, or (B, V) int8 with 1 for a
    class that is present, -1 for one that is absent, and 0 for one that is unknown, which is
    ignored. The loss is a mean over the images, or over the known labels.
    """

    main_losses = ("classification",)

    def __init__(self, visual: Backbone, textual: LabelHead) -> None:
        super().__init__(visual)
        self.textual = textual

    def main_targets(self, batch: Batch) -> dict[str, Tensor]:
        """The images, or the known labels."""
        labels = batch["labels"]
        known = labels >= 0 if labels.ndim == 1 else labels != 0
        return {"classification": known.sum()}

    def main_totals(self, grid: Tensor, batch: Batch) -> dict[str, Tensor]:
        """`classification`, summed over the images, or over the known labels."""
        logits, labels = at_least_float32(self.textual(grid)), batch["labels"]
        if labels.ndim == 1:
            return {"classification": F.cross_entropy(logits, labels, reduction="sum")}
        present = (labels == 1).to(logits.dtype)
        costs = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
        return {"classification": costs.masked_fill(labels == 0, 0.0).sum()}


@dataclass(frozen=True)
class LabelEncoder:
    """The labels of images, one each or `several`. Nothing is drawn; mirroring changes no label."""

    several: bool

    def encode(
        self,
        record: Record,
        augmented: Augmented,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> dict[str, object]:
        """`image` (H, W, 3) uint8, `image_id`, and `labels` as in the record."""
        return image_example(record, augmented) | {"labels": record.labels}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A `Batch` with `labels` (B,) int64, or (B, V) int8 for several."""
        rows = [example["labels"] for example in examples]
        labels = torch.tensor(rows, dtype=torch.int8 if self.several else torch.int64)
        return image_batch(examples) | {"labels": labels if self.several else labels.squeeze(1)}


def predict_classes(objective: ImageClassification, classes: Classes, batch: Batch) -> list[Sample]:
    """The names of the predicted and of the true class, or of several.

    Of several, the likeliest classes with a probability above one half are predicted.
    """
    with evaluating(objective):
        logits = objective.textual(objective.visual(batch["image"]))
    likeliest = logits.argsort(dim=1, descending=True).tolist()
    if not classes.several:
        pairs = zip(likeliest, batch["labels"].tolist(), strict=True)
        return [Sample(classes.names[best[0]], classes.names[label]) for best, label in pairs]

    def text(indices: Sequence[int]) -> str:
        return ", ".join(classes.names[index] for index in indices) or "none"

    return [
        Sample(
            text([index for index in best[:_SHOWN] if scores[index] > 0]),
            text([index for index, label in enumerate(labels) if label == 1]),
        )
        for best, scores, labels in zip(
            likeliest, logits.tolist(), batch["labels"].tolist(), strict=True
        )
    ]


def _objective(visual: Backbone, settings: TaskSettings) -> ImageClassification:
    head = LabelHead(settings.feature_size, settings.vocab_size)
    initialise(head, settings.initial_std)
    return ImageClassification(visual, head)


IMAGE_CLASSIFICATION: Task[ImageClassification, Classes] = Task(
    labels="classes",
    head="linear",
    main_encoder=lambda classes, *_: LabelEncoder(classes.several),
    main_objective=_objective,
    sample_predictor=lambda objective, classes, _: (
        lambda batch: predict_classes(objective, classes, batch)
    ),
    captioning_head=None,
    class_head=lambda objective: objective.textual,
)

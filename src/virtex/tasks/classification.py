"""Classification into a set of labels: what token and multilabel classification have in common.

The target is the uniform distribution over the labels of an image (Mahajan et al., 2018).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from virtex.models.backbone import Backbone
from virtex.models.heads import LabelHead
from virtex.models.modes import evaluating
from virtex.tasks.base import Batch, Description, Loss, Objective, at_least_float32
from virtex.tasks.caption_tokens import image_batch, padded

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

    def counts(self, batch: Batch) -> dict[str, Tensor]:
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
        return {"classification": Loss(costs.sum(), self.counts(batch)["classification"])}


def label_batch(examples: Sequence[Mapping[str, Any]], padding: int) -> dict[str, Tensor]:
    """A `Batch` of examples with `labels` (k,) int64; here they are (B, K), filled up."""
    return image_batch(examples) | {
        "labels": padded([example["labels"] for example in examples], padding)
    }


@dataclass(frozen=True)
class DescribeLabels:
    """The names of the likeliest labels, and of those given; `name` gives that of an index."""

    objective: LabelSetClassification
    name: Callable[[int], str]

    def __call__(self, batch: Batch) -> list[Description]:
        ignored = set(self.objective.ignored.tolist())
        with evaluating(self.objective):
            logits = self.objective.textual(self.objective.visual(batch["image"]))
            logits = logits.index_fill(1, self.objective.ignored, -torch.inf)
            likeliest = logits.topk(min(_SHOWN, logits.shape[1] - len(ignored))).indices
        given = [sorted(set(row) - ignored) for row in batch["labels"].tolist()]
        return [
            Description(*(", ".join(map(self.name, labels)) or "none" for labels in pair))
            for pair in zip(likeliest.tolist(), given, strict=True)
        ]

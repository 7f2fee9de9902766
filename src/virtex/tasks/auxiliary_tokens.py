"""The tokens of all captions of an image as a second target, beside any captioning task.

A linear layer on the mean of the grid predicts them, as in SuperClass (Huang et al., 2024, arXiv
2411.03313). Unlike the caption itself, the target needs no language model to be learned first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.decoder import initialise
from virtex.models.heads import LabelHead
from virtex.tasks.base import Auxiliary, AuxiliaryHead, Batch, TaskSettings
from virtex.tasks.caption_tokens import CaptionTokens, caption_tokens, padded
from virtex.tasks.label_targets import LabelCounts, LabelTargets
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class AllTokensEncoder:
    """The distinct tokens of all captions of an image. Nothing is drawn."""

    captions: CaptionTokens

    def encode(
        self,
        record: Record,
        augmented: Augmented,
        rng: np.random.Generator,  # noqa: ARG002
    ) -> dict[str, object]:
        """`all_tokens` (k,) int64."""
        tokens = self.captions.all_tokens(record, mirrored=augmented.mirrored)
        return {"all_tokens": torch.tensor(tokens, dtype=torch.int64)}

    def collate(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """`all_tokens` (B, K) int64, padded on the right."""
        rows = [example["all_tokens"] for example in examples]
        return {"all_tokens": padded(rows, self.captions.padding_index)}


class TokensHead(AuxiliaryHead):
    """Cross-entropy of the tokens, weighted by how rare they are; a mean over the images."""

    def __init__(self, classifier: LabelHead, targets: LabelTargets) -> None:
        super().__init__()
        self.classifier = classifier
        self.targets = targets

    def num_targets(self, batch: Batch) -> Tensor:
        """The images with a target."""
        return self.targets.num_images(batch["all_tokens"])

    def forward(self, grid: Tensor, batch: Batch) -> Tensor:
        """The sum of the cross-entropy over these images."""
        return self.targets.cross_entropy(self.classifier(grid), batch["all_tokens"])


def _head(settings: TaskSettings) -> TokensHead:
    classifier = LabelHead(settings.feature_size, settings.vocab_size)
    initialise(classifier, settings.initial_std)
    counts = LabelCounts(settings.vocab_size)
    return TokensHead(classifier, LabelTargets(settings.special_ids, counts))


def auxiliary_tokens(weight: float) -> Auxiliary[Tokenizer]:
    """The auxiliary loss `tokens` with a weight."""
    return Auxiliary(
        name="tokens",
        encoder=lambda tokenizer, settings, training: AllTokensEncoder(
            caption_tokens(tokenizer, settings, training)
        ),
        head=_head,
        weight=weight,
    )

"""Targets over a set of labels, such as the tokens of captions: a distribution for each image.

The distinct labels of an image share it equally (Mahajan et al., 2018), or by how rare they are
among the training images (SuperClass; Huang et al., 2024, arXiv 2411.03313).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from virtex.tasks.base import at_least_float32


class LabelCounts(nn.Module):
    """How many of the training images have each of V labels; saved with the weights."""

    images: Tensor
    images_with: Tensor

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros((), dtype=torch.int64))
        self.register_buffer("images_with", torch.zeros(labels, dtype=torch.int64))

    def put(self, images: int, images_with: Tensor) -> None:
        """Set the number of images, and of those with each label, (V,) int64."""
        self.images.fill_(images)
        self.images_with.copy_(images_with)

    def weights(self) -> Tensor:
        """log(N / n), (V,) float64, for n of N images with a label, at least one."""
        return (self.images.double() / self.images_with.clamp(min=1)).log()


class LabelTargets(nn.Module):
    """Distributions over V labels, and the cross-entropy against them.

    The distinct labels of an image have equal shares or, with `counts`, shares in proportion to
    `LabelCounts.weights`. Indices in `ignored` are no labels; they also fill up short rows.
    """

    ignored: Tensor

    def __init__(self, ignored: Sequence[int], counts: LabelCounts | None = None) -> None:
        super().__init__()
        self.register_buffer("ignored", torch.tensor(ignored), persistent=False)
        self.label_counts = counts

    def num_images(self, labels: Tensor) -> Tensor:
        """The number of images with a target, an int64 scalar, given `labels` (B, K) int64."""
        labelled = ~torch.isin(labels, self.ignored)
        if self.label_counts is not None:
            labelled &= self.label_counts.weights()[labels] > 0
        return labelled.any(dim=1).sum()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum over all images with a target, given logits (B, V) and `labels` (B, K) int64."""
        logits = at_least_float32(logits)
        shares = torch.zeros_like(logits).scatter_(1, labels, 1.0)
        shares = shares.index_fill(1, self.ignored, 0.0)
        if self.label_counts is not None:
            shares = shares * self.label_counts.weights().to(shares)
        sums = shares.sum(dim=1)
        costs = -(logits.log_softmax(dim=1) * shares).sum(dim=1) / sums.where(sums > 0, 1.0)
        return costs.sum()

"""The interface of a decoding strategy: a step function with its cache, and ranked hypotheses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor


class Cache(Protocol):
    """The state of a step function after the tokens so far, one row per hypothesis."""

    def select(self, rows: Tensor) -> Self:
        """The cache of the rows `rows` (int64), in that order."""


C = TypeVar("C", bound=Cache)

NextToken = Callable[[Tensor, C], tuple[Tensor, C]]
"""Maps newest tokens (N,) int64 and the cache before them to logits (N, V) and the longer cache."""


@dataclass(frozen=True)
class Hypotheses:
    """K hypotheses of each image, best first: tokens (B, K, T) int64, scores (B, K)."""

    tokens: Tensor
    scores: Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, V) to log-probabilities (N, V) float32."""
    return torch.log_softmax(logits.float(), dim=-1)

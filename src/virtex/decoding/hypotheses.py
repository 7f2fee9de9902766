"""What every decoding takes and gives: a step function with its memory, and ranked hypotheses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor


class Memory(Protocol):
    """What a step function remembers of the tokens so far, a row a hypothesis."""

    def select(self, rows: Tensor) -> Self:
        """The memory of the rows `rows` (int64), in that order."""


M = TypeVar("M", bound=Memory)

NextToken = Callable[[Tensor, M], tuple[Tensor, M]]
"""(N,) int64 newest tokens and the memory before them to logits (N, V) and the longer memory."""


@dataclass(frozen=True)
class Hypotheses:
    """K hypotheses of each image, best first: tokens (B, K, T) int64, scores (B, K)."""

    tokens: Tensor
    scores: Tensor


def log_probabilities(logits: Tensor) -> Tensor:
    """Logits (N, V) to log-probabilities (N, V) float32."""
    return torch.log_softmax(logits.float(), dim=-1)

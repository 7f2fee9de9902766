"""The answers of a classifier, recorded while the losses of a split are computed."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from virtex.evaluation.figures import Statistics, prediction_statistics, ranking_statistics
from virtex.tasks.base import Batch, Objective, Task
from virtex.text.vocabulary import Classes, Vocabulary

Answers = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Of N images with one label: predicted and true classes, (N,) int64. Of several labels: scores
(N, V) float64, and labels (N, V) int8."""


class ClassScores:
    """Records what an objective answers, without computing anything twice.

    The objective runs within `recording`, on batches that pass through `watch`. For a task without
    classes nothing is recorded, and there are no statistics.
    """

    def __init__(self, task: Task[Any, Any], objective: Objective) -> None:
        self._head = None if task.class_head is None else task.class_head(objective)
        self._batch: Batch = {}
        self._answers: list[tuple[Tensor, Tensor]] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the output of the head in this context."""
        if self._head is None:
            hook: Any = nullcontext()
        else:
            hook = self._head.register_forward_hook(self._record)
        with hook:
            yield

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; each must be computed before the next one is taken."""
        for self._batch in batches:
            yield self._batch

    @property
    def answers(self) -> Answers | None:
        """What was recorded by this process; None for nothing."""
        if not self._answers:
            return None
        predicted, labels = (torch.cat(parts).numpy() for parts in zip(*self._answers, strict=True))
        return predicted, labels

    def _record(self, _: nn.Module, __: Any, logits: Tensor) -> None:
        labels = self._batch["labels"]
        answer = logits.argmax(dim=1) if labels.ndim == 1 else logits.double()
        self._answers.append((answer.cpu(), labels.cpu()))


def class_statistics(
    answers: Sequence[Answers | None], vocabulary: Vocabulary
) -> Statistics | None:
    """Accuracies, or mean average precision for several labels, of the answers of all processes.

    None without an answer, and if no class has both a positive and a negative.
    """
    given = [one for one in answers if one is not None]
    if not given or not isinstance(vocabulary, Classes):
        return None
    predicted, labels = (np.concatenate(parts) for parts in zip(*given, strict=True))
    if not vocabulary.several:
        return prediction_statistics(predicted, labels)
    if not ((labels == 1).any(0) & (labels == -1).any(0)).any():
        return None
    return ranking_statistics(predicted, labels, vocabulary.names)

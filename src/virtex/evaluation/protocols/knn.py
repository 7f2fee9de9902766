"""Classification by the nearest training images."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from virtex.errors import UserError
from virtex.evaluation.figures import (
    Figure,
    Statistics,
    prediction_statistics,
    ranking_statistics,
)
from virtex.evaluation.protocols.split import Split, prepare

KS = (10, 20, 100, 200)
_TEST_BATCH = 256
_TRAIN_BLOCK = 65536


def knn(
    train: Split,
    test: Split,
    ks: Sequence[int] = KS,
    temperature: float = 0.07,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Figure]:
    """Figures for each k: the nearest images by cosine similarity vote with exp(similarity / T).

    Of several labels, the score of a class is the share of the votes of those neighbours whose
    label is not ignored. A k that exceeds the training images is left out and named in the
    settings. `advance` counts test images.

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
    section 3.4.
    """
    train, test, settings = prepare(train, test)
    kept = [k for k in ks if k <= len(train.features)]
    if not kept:
        raise UserError(
            f"each k of {', '.join(map(str, ks))} exceeds the {len(train.features)} training images"
        )
    settings |= {"temperature": temperature, "k_left_out": tuple(k for k in ks if k not in kept)}
    targets = train.one_against_rest().labels
    scores: dict[int, list[Tensor]] = {k: [] for k in kept}
    references = F.normalize(train.features, dim=1)
    for queries in torch.split(F.normalize(test.features.double(), dim=1), _TEST_BATCH):
        similarities, neighbours = _nearest(queries, references, max(kept))
        # The nearest image has vote 1, so that no temperature overflows.
        votes = ((similarities - similarities[:, :1]) / temperature).exp()
        for k in kept:
            scores[k].append(_shares(votes[:, :k], targets[neighbours[:, :k]]))
        advance(len(queries))
    return [
        figure
        for k in kept
        for figure in _statistics(torch.cat(scores[k]), test).figures(
            {**settings, "k": k}, suffix=f"_k{k}"
        )
    ]


def _nearest(queries: Tensor, references: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine similarities (B, k) float64, highest first, and positions of the references."""
    best = queries.new_empty((len(queries), 0))
    where = torch.empty((len(queries), 0), dtype=torch.int64)
    for first in range(0, len(references), _TRAIN_BLOCK):
        block = references[first : first + _TRAIN_BLOCK].double()
        best = torch.cat([best, queries @ block.T], dim=1)
        numbers = torch.arange(first, first + len(block)).expand(len(queries), -1)
        where = torch.cat([where, numbers], dim=1)
        best, chosen = best.topk(min(k, best.shape[1]), dim=1)
        where = where.gather(1, chosen)
    return best, where


def _shares(votes: Tensor, labels: Tensor) -> Tensor:
    """The share of each class in votes (B, k) on labels (B, k, K); 0 where all are ignored."""
    positive = torch.einsum("bk,bkc->bc", votes, (labels == 1).double())
    counted = torch.einsum("bk,bkc->bc", votes, (labels != 0).double())
    return torch.where(counted > 0, positive / counted, 0.0)


def _statistics(scores: Tensor, test: Split) -> Statistics:
    if test.multilabel:
        return ranking_statistics(scores.numpy(), test.labels.numpy(), test.classes)
    return prediction_statistics(scores.argmax(dim=1).numpy(), test.labels.numpy())

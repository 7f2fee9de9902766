"""Linear classification from a few training images a class."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from virtex.errors import UserError
from virtex.evaluation.figures import Figure, prediction_statistics, ranking_statistics
from virtex.evaluation.protocols.classifiers import Inputs, standardise
from virtex.evaluation.protocols.linear import (
    PENALTIES,
    fit_binary_with_sweep,
    fit_multinomial_with_sweep,
)
from virtex.evaluation.protocols.split import Split, prepare, shuffled_members

COUNTS = (1, 2, 4, 8, 16, 32, 64, 96)
DRAWS = 5
_TOLERANCES = (1e-3, 1e-4)
"""Coarser than for `linear`: few images determine the weights less than the draw changes them."""


def low_shot(
    train: Split,
    test: Split,
    counts: Sequence[int] = COUNTS,
    draws: int = DRAWS,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Figure]:
    """Figures for each count of training images a class: mean and deviation over draws.

    The classifier is that of `linear`, which holds out a fifth of the drawn images to choose its
    penalty; a single image a class cannot be held out, and the strongest penalty is taken.

    Which images are drawn depends on labels and seed alone, and a larger count contains a smaller
    one. For several labels a class has `count` positives and `count * (K - 1)` negatives, as in the
    VOC07 low-shot protocol. Features are standardised over all training images, which uses no
    label. A count that exceeds the smallest class is left out and named in the settings. `advance`
    counts fits.

    Source: Goyal et al., Scaling and Benchmarking Self-Supervised Visual Representation Learning.
    """
    train, test, settings = prepare(train, test)
    smallest = _smallest_class(train)
    kept = [count for count in counts if count <= smallest]
    if not kept:
        raise UserError(
            f"the smallest class has {smallest} training images, fewer than each count of "
            f"{', '.join(map(str, counts))}"
        )
    settings |= {
        "counts_left_out": tuple(count for count in counts if count not in kept),
        "draws": draws,
        "penalties": PENALTIES,
        "seed": seed,
    }
    inputs, test_inputs = standardise(train.features, test.features)
    fit = _fit_several_labels if train.multilabel else _fit_one_label
    figures = []
    for count in kept:
        values: dict[str, list[float]] = {}
        for draw in range(draws):
            scores = test_inputs @ fit(inputs, train.labels, count, seed, draw).T
            for metric, value in _measure(scores, test).items():
                values.setdefault(f"{metric}_n{count}", []).append(value)
            advance(1)
        figures += [_figure(*item, {**settings, "count": count}) for item in values.items()]
    return figures


def _figure(metric: str, values: list[float], settings: dict[str, object]) -> Figure:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Figure(metric, float(np.mean(values)), None, deviation, settings)


def _smallest_class(train: Split) -> int:
    if train.multilabel:
        return int((train.labels == 1).sum(0).min())
    return int(train.labels.bincount().min())


def _fit_one_label(inputs: Inputs, labels: Tensor, count: int, seed: int, draw: int) -> Tensor:
    classes = int(labels.max()) + 1
    drawn = torch.from_numpy(
        np.concatenate(
            [shuffled_members(labels.numpy(), k, seed, draw)[:count] for k in range(classes)]
        )
    )
    return fit_multinomial_with_sweep(
        inputs.rows(drawn), labels[drawn], seed, tolerances=_TOLERANCES
    )[1]


def _fit_several_labels(inputs: Inputs, labels: Tensor, count: int, seed: int, draw: int) -> Tensor:
    classes = labels.shape[1]
    signs = torch.zeros_like(labels)
    for k, column in enumerate(labels.T.long().numpy()):
        for sign, most in ((1, count), (-1, count * max(classes - 1, 1))):
            members = shuffled_members(column, sign, seed, draw, k)[:most]
            signs[torch.from_numpy(members), k] = sign
    drawn = (signs != 0).any(1)
    return fit_binary_with_sweep(inputs.rows(drawn), signs[drawn], seed, tolerances=_TOLERANCES)[1]


def _measure(scores: Tensor, test: Split) -> dict[str, float]:
    if test.multilabel:
        return ranking_statistics(scores.numpy(), test.labels.numpy(), test.classes).values()
    return prediction_statistics(scores.argmax(dim=1).numpy(), test.labels.numpy()).values()

"""Logistic regression on frozen features, its penalty chosen on held-out training images."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from virtex.evaluation.figures import (
    Figure,
    average_precision,
    prediction_statistics,
    ranking_statistics,
)
from virtex.evaluation.protocols.classifiers import Inputs, fit_binary, fit_multinomial, standardise
from virtex.evaluation.protocols.split import Split, prepare, stratified_subset

# From 1 to 10^-4.5, half a power of ten apart. The strongest comes first: it is quickly fitted, and
# each fit starts from the one before.
PENALTIES = tuple(10 ** (-half / 2) for half in range(10))
HELD_OUT = 0.2
_TOLERANCES = (1e-5, 1e-7)
"""The largest gradient at the end of a fit: in the sweep, and at last."""


def linear(
    train: Split,
    test: Split,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
    advance: Callable[[int], None] = lambda _: None,
) -> list[Figure]:
    """Figures of logistic regression: multinomial, or a binary one a class for several labels.

    `penalties` descend. A fifth of the training images of each class is held out; the penalty of
    the highest accuracy (for several labels, of the class's highest average precision) is chosen,
    the strongest of equal ones, and all training images are fitted again. `advance` counts the
    penalties.

    The objective is mean loss + penalty / 2 * |weights|², without the intercepts: scikit-learn's
    `LogisticRegression(C=1 / (penalty * images))`.
    """
    train, test, settings = prepare(train, test)
    inputs, test_inputs = standardise(train.features, test.features)
    settings |= {"penalties": tuple(penalties), "seed": seed}
    if train.multilabel:
        chosen, weights = fit_binary_with_sweep(
            inputs, train.labels, seed, penalties, advance=advance
        )
        settings["penalty"] = tuple(chosen.tolist())
        scores = (test_inputs @ weights.T).numpy()
        return ranking_statistics(scores, test.labels.numpy(), test.classes).figures(settings)
    penalty, weights = fit_multinomial_with_sweep(
        inputs, train.labels, seed, penalties, advance=advance
    )
    settings["penalty"] = penalty
    predicted = (test_inputs @ weights.T).argmax(dim=1)
    return prediction_statistics(predicted.numpy(), test.labels.numpy()).figures(settings)


def fit_multinomial_with_sweep(
    inputs: Inputs,
    labels: Tensor,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    tolerances: tuple[float, float] = _TOLERANCES,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[float, Tensor]:
    """The chosen penalty, and weights (K, M) fitted on all inputs (N, M) with it."""
    held_out = torch.from_numpy(stratified_subset(labels.numpy(), HELD_OUT, seed))
    weights = inputs.values.new_zeros((int(labels.max()) + 1, inputs.values.shape[1]))
    best, chosen, start = -1.0, penalties[0], weights
    fitted, fitted_labels = inputs.rows(~held_out), labels[~held_out]
    for penalty in penalties:
        weights = fit_multinomial(fitted, fitted_labels, penalty, weights, tolerances[0])
        predicted = (inputs.values[held_out] @ weights.T).argmax(dim=1)
        accuracy = float((predicted == labels[held_out]).double().mean())
        if accuracy > best:
            best, chosen, start = accuracy, penalty, weights
        advance(1)
    return chosen, fit_multinomial(inputs, labels, chosen, start, tolerances[1])


def fit_binary_with_sweep(
    inputs: Inputs,
    labels: Tensor,
    seed: int,
    penalties: Sequence[float] = PENALTIES,
    tolerances: tuple[float, float] = _TOLERANCES,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Tensor, Tensor]:
    """The penalty chosen for each class (K,), and weights (K, M) fitted on all inputs with it.

    A class with a single positive or negative takes the strongest penalty.
    """
    signs = labels.T.contiguous()
    held_out = torch.from_numpy(
        np.stack([stratified_subset(row, HELD_OUT, seed) for row in signs.long().numpy()])
    )
    fitted = torch.where(held_out, 0, signs)
    weights = inputs.values.new_zeros((len(signs), inputs.values.shape[1]))
    best = torch.full((len(signs),), -1.0, dtype=torch.float64)
    chosen, start = torch.full_like(best, penalties[0]), weights
    for penalty in penalties:
        weights = fit_binary(inputs, fitted, torch.full_like(best, penalty), weights, tolerances[0])
        precision = _precision_of_classes(
            weights @ inputs.values.T, torch.where(held_out, signs, 0)
        )
        better = precision > best  # never for NaN
        best, chosen = best.where(~better, precision), chosen.where(~better, penalty)
        start = start.where(~better[:, None], weights)
        advance(1)
    return chosen, fit_binary(inputs, signs, chosen, start, tolerances[1])


def _precision_of_classes(scores: Tensor, signs: Tensor) -> Tensor:
    """Average precision of each row of scores (K, N), over the images with a sign."""
    return torch.tensor(
        [
            average_precision(score[sign != 0], sign[sign != 0] == 1)
            for score, sign in zip(scores.numpy(), signs.numpy(), strict=True)
        ],
        dtype=torch.float64,
    )

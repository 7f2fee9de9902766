"""Linear classifiers on frozen features: multinomial and binary logistic regression, and SVMs.

Inputs are (N, M) float64 and end with a column of ones, so the last parameter is the intercept.
Penalties belong to the mean loss: `mean loss + penalty / 2 * |weights|²`.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from virtex.evaluation.protocols.minimization import minimize

# Margins to losses and their derivatives.
MarginLoss = Callable[[Tensor], tuple[Tensor, Tensor]]


def standardise(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both splits in float64 with mean 0 and deviation 1 over the training images, and ones."""
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0)
    # A constant feature would become 0 / 0, or rounding errors divided by themselves.
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
    return append_ones((train - mean) / deviation), append_ones((test - mean) / deviation)


def append_ones(features: Tensor) -> Tensor:
    """The features in float64 with a last column of ones."""
    return F.pad(features.double(), (0, 1), value=1.0)


def fit_multinomial(
    inputs: Tensor, labels: Tensor, penalty: float, start: Tensor, tolerance: float
) -> Tensor:
    """Weights (K, M) of multinomial logistic regression on labels (N,), from `start`.

    The intercepts are not penalised.
    """
    rows = torch.arange(len(labels))

    def objective(parameters: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        weights = parameters.view_as(start)
        log_probabilities = (inputs @ weights.T).log_softmax(dim=1)
        value = -log_probabilities[rows, labels].mean() + penalty / 2 * _squares(weights)
        residual = log_probabilities.exp_()
        residual[rows, labels] -= 1
        gradient = residual.T @ inputs / len(inputs)
        gradient[:, :-1] += penalty * weights[:, :-1]
        return value[None], gradient.view(1, -1)

    return minimize(objective, start.reshape(1, -1), tolerance=tolerance).view_as(start)


def fit_binary(
    inputs: Tensor, signs: Tensor, penalties: Tensor, start: Tensor, tolerance: float
) -> Tensor:
    """Weights (P, M) of P binary logistic regressions on the same inputs, from `start`.

    `signs` is (P, N): 1 for a positive, -1 for a negative, 0 for what the problem does not have.
    `penalties` is (P,). The intercepts are not penalised.
    """
    present = (signs != 0).double()
    importance = present / present.sum(dim=1, keepdim=True)
    decay = penalties[:, None].repeat(1, inputs.shape[1])
    decay[:, -1] = 0
    return _fit_margins(logistic, inputs, signs, importance, decay, start, tolerance)


def fit_svm(
    inputs: Tensor,
    signs: Tensor,
    cost: Tensor,
    start: Tensor,
    *,
    positive_weight: float,
    tolerance: float,
) -> Tensor:
    """Weights (P, M) of P linear SVMs with the squared hinge, from `start`; `cost` is (P,).

    `signs` is as for `fit_binary`. The objective is LinearSVC's divided by cost and images, so the
    intercept is penalised as a weight.
    """
    images = (signs != 0).sum(dim=1, keepdim=True).double()
    importance = torch.where(signs > 0, positive_weight, (signs != 0).double()) / images
    decay = (1 / (cost[:, None] * images)).expand(-1, inputs.shape[1])
    return _fit_margins(squared_hinge, inputs, signs, importance, decay, start, tolerance)


def logistic(margins: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 + exp(-margin))"""
    # Softplus is linear above a threshold, and its jump there would end line searches early.
    return -F.logsigmoid(margins), -torch.sigmoid(-margins)


def squared_hinge(margins: Tensor) -> tuple[Tensor, Tensor]:
    """max(0, 1 - margin)²"""
    short = (1 - margins).clamp(min=0)
    return short.square(), -2 * short


def _fit_margins(
    loss: MarginLoss,
    inputs: Tensor,
    signs: Tensor,
    importance: Tensor,
    decay: Tensor,
    start: Tensor,
    tolerance: float,
) -> Tensor:
    signs = signs.double()

    def objective(parameters: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        sign, weight, shrink = signs[problems], importance[problems], decay[problems]
        losses, slopes = loss(sign * (parameters @ inputs.T))
        penalty = (shrink * parameters.square()).sum(dim=1) / 2
        gradient = (slopes * sign * weight) @ inputs + shrink * parameters
        return (losses * weight).sum(dim=1) + penalty, gradient

    return minimize(objective, start, tolerance=tolerance)


def _squares(weights: Tensor) -> Tensor:
    return weights[:, :-1].square().sum()

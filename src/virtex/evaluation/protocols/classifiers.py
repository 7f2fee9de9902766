"""Linear classifiers on frozen features: multinomial and binary logistic regression, and SVMs.

Penalties belong to the mean loss: `mean loss + penalty / 2 * |weights|²`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from virtex.evaluation.protocols.minimization import minimize

# Margins to losses and their derivatives.
MarginLoss = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Inputs:
    """What a classifier is fitted on: `values` (N, M) float64, and the mean square (M,) of each
    column over the training images, which guides the fit and does not change its result.

    Columns are principal axes: a penalty on all weights is the same in them as in the features, and
    the curvature of the loss is nearly diagonal.
    """

    values: Tensor
    spectrum: Tensor

    def rows(self, chosen: Tensor) -> "Inputs":
        """The chosen images."""
        return replace(self, values=self.values[chosen])


def standardise(train: Tensor, test: Tensor) -> tuple[Inputs, Tensor]:
    """Training inputs and test values for logistic regression.

    Features have mean 0 and deviation 1 over the training images. The last column holds ones, so
    the last weight is the intercept.
    """
    mean, deviation = train.double().mean(0), train.double().std(0, correction=0)
    # A constant feature would become 0 / 0, or rounding errors divided by themselves.
    deviation = torch.where(deviation > 1e-6 * mean.abs(), deviation, 1.0)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    spectrum, axes = _principal_axes(train)
    inputs = Inputs(_append_ones(train @ axes), F.pad(spectrum, (0, 1), value=1.0))
    return inputs, _append_ones(test @ axes)


def normalise(train: Tensor, test: Tensor) -> tuple[Inputs, Tensor]:
    """Training inputs and test values for SVMs: features of length 1 with a column of ones.

    The penalty covers the ones too, so they take part in the principal axes.
    """
    train, test = (_append_ones(F.normalize(x, dim=1).double()) for x in (train, test))
    spectrum, axes = _principal_axes(train)
    return Inputs(train @ axes, spectrum), test @ axes


def fit_multinomial(
    inputs: Inputs, labels: Tensor, penalty: float, start: Tensor, tolerance: float
) -> Tensor:
    """Weights (K, M) of multinomial logistic regression on labels (N,), from `start`.

    The intercepts are not penalised.
    """
    values = inputs.values
    rows, classes = torch.arange(len(labels)), len(start)
    decay = torch.full_like(start, penalty)
    decay[:, -1] = 0

    def objective(parameters: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        weights = parameters.view_as(start)
        log_probabilities = (values @ weights.T).log_softmax(dim=1)
        value = (decay * weights.square()).sum() / 2 - log_probabilities[rows, labels].mean()
        residual = log_probabilities.exp()
        residual[rows, labels] -= 1
        gradient = residual.T @ values / len(values) + decay * weights
        return value[None], gradient.view(1, -1)

    # That of equal probabilities.
    curvature = (inputs.spectrum * (1 - 1 / classes) / classes + decay).reshape(1, -1)
    flat = start.reshape(1, -1)
    return minimize(objective, flat, tolerance=tolerance, curvature=curvature).view_as(start)


def fit_binary(
    inputs: Inputs, signs: Tensor, penalties: Tensor, start: Tensor, tolerance: float
) -> Tensor:
    """Weights (P, M) of P binary logistic regressions on the same inputs, from `start`.

    `signs` is (P, N): 1 for a positive, -1 for a negative, 0 for what the problem does not have.
    `penalties` is (P,). The intercepts are not penalised.
    """
    present = (signs != 0).double()
    importance = present / present.sum(dim=1, keepdim=True)
    decay = penalties[:, None].repeat(1, start.shape[1])
    decay[:, -1] = 0
    # That of the same probability for all images.
    positive = (importance * (signs > 0)).sum(dim=1, keepdim=True)
    curvature = positive * (1 - positive) * inputs.spectrum + decay
    return _fit_margins(logistic, inputs, signs, importance, decay, start, tolerance, curvature)


def fit_svm(
    inputs: Inputs,
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
    decay = (1 / (cost[:, None] * images)).expand(-1, start.shape[1])
    curvature = 2 * inputs.spectrum + decay
    return _fit_margins(
        squared_hinge, inputs, signs, importance, decay, start, tolerance, curvature
    )


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
    inputs: Inputs,
    signs: Tensor,
    importance: Tensor,
    decay: Tensor,
    start: Tensor,
    tolerance: float,
    curvature: Tensor,
) -> Tensor:
    signs = signs.double()

    def objective(parameters: Tensor, problems: Tensor) -> tuple[Tensor, Tensor]:
        sign, weight, shrink = signs[problems], importance[problems], decay[problems]
        losses, slopes = loss(sign * (parameters @ inputs.values.T))
        penalty = (shrink * parameters.square()).sum(dim=1) / 2
        gradient = (slopes * sign * weight) @ inputs.values + shrink * parameters
        return (losses * weight).sum(dim=1) + penalty, gradient

    return minimize(objective, start, tolerance=tolerance, curvature=curvature)


def _append_ones(values: Tensor) -> Tensor:
    return F.pad(values, (0, 1), value=1.0)


def _principal_axes(values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean squares (M,) of values (N, M) along their axes, and the axes (M, M) as columns."""
    spectrum, axes = torch.linalg.eigh(values.T @ values / len(values))
    return spectrum.clamp(min=0), axes

"""L-BFGS for many smooth convex problems at once, each with its own curvature and step size.

Problems of one shape share their matrix products. A problem leaves the batch when it has converged.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Parameters (P, M) of the problems whose numbers are (P,), to values (P,) and gradients (P, M).
Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_MEMORY = 10
_DECREASE = 1e-4  # the share of the linear decrease that a step must reach
_TRIALS = 20


def minimize(
    objective: Objective,
    start: Tensor,
    *,
    tolerance: float,
    curvature: Tensor,
    iterations: int = 2000,
) -> Tensor:
    """The parameters (P, M) float64 that minimise each problem, from `start` (P, M).

    `curvature` (P, M) is a guess of the second derivatives, up to a factor a problem.

    A problem has converged when no entry of its gradient exceeds `tolerance`, or when rounding
    allows no further decrease.

    Source: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 3.1.
    """
    result = start.clone()
    batch = _Batch.start(objective, start, curvature)
    for _ in range(iterations):
        going = batch.moved & (batch.gradient.abs().amax(dim=1) > tolerance)
        if not going.all():
            result[batch.problems[~going]] = batch.point[~going]
            batch.keep(going)
        if not len(batch.problems):
            return result
        batch.step(objective)
    result[batch.problems] = batch.point
    return result


@dataclass
class _Batch:
    """The problems that have not converged, with the last steps of each.

    `history` holds steps (P, M), changes of the gradient (P, M) and the inverse of their product
    (P, 1), 0 where a step had no curvature. The first guess of the inverse curvature is `inverse`
    (P, M) times `scale` (P, 1), which the last step determines.
    """

    problems: Tensor
    point: Tensor
    value: Tensor
    gradient: Tensor
    moved: Tensor
    inverse: Tensor
    scale: Tensor
    history: list[tuple[Tensor, Tensor, Tensor]]

    @classmethod
    def start(cls, objective: Objective, point: Tensor, curvature: Tensor) -> "_Batch":
        problems = torch.arange(len(point))
        value, gradient = objective(point, problems)
        scale = point.new_ones((len(point), 1))
        moved = torch.ones(len(point), dtype=torch.bool)
        return cls(problems, point.clone(), value, gradient, moved, 1 / curvature, scale, [])

    def keep(self, chosen: Tensor) -> None:
        """Drop the other problems."""
        for name in ("problems", "point", "value", "gradient", "moved", "inverse", "scale"):
            setattr(self, name, getattr(self, name)[chosen])
        self.history = [(s[chosen], y[chosen], rho[chosen]) for s, y, rho in self.history]

    def step(self, objective: Objective) -> None:
        """Move each problem along its quasi-Newton direction, as far as its value decreases."""
        direction = self._direction()
        point, value, gradient, self.moved = self._search(objective, direction)
        step, change = point - self.point, gradient - self.gradient
        product = (step * change).sum(dim=1, keepdim=True)
        curved = product > 1e-14 * step.norm(dim=1, keepdim=True) * change.norm(dim=1, keepdim=True)
        inverse = torch.where(curved, 1 / product, 0.0)
        self.scale = torch.where(
            curved,
            product / (self.inverse * change.square()).sum(dim=1, keepdim=True),
            self.scale,
        )
        self.history = [*self.history[-_MEMORY + 1 :], (step, change, inverse)]
        self.point, self.value, self.gradient = point, value, gradient

    def _direction(self) -> Tensor:
        direction = -self.gradient
        factors = []
        for step, change, inverse in reversed(self.history):
            factor = inverse * (step * direction).sum(dim=1, keepdim=True)
            direction = direction - factor * change
            factors.append(factor)
        direction = direction * self.scale * self.inverse
        for (step, change, inverse), factor in zip(self.history, reversed(factors), strict=True):
            correction = factor - inverse * (change * direction).sum(dim=1, keepdim=True)
            direction = direction + correction * step
        return direction

    def _search(
        self, objective: Objective, direction: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shorten each problem's step until its value has decreased enough (Armijo's condition)."""
        slope = (self.gradient * direction).sum(dim=1)
        length = torch.ones_like(slope)
        point, value, gradient = self.point.clone(), self.value.clone(), self.gradient.clone()
        rest = torch.arange(len(slope))
        for _ in range(_TRIALS):
            tried = self.point[rest] + length[rest, None] * direction[rest]
            new_value, new_gradient = objective(tried, self.problems[rest])
            linear = length[rest] * slope[rest]
            excess = new_value - self.value[rest]
            enough = excess <= _DECREASE * linear
            accepted = rest[enough]
            point[accepted] = tried[enough]
            value[accepted], gradient[accepted] = new_value[enough], new_gradient[enough]
            if enough.all():
                break
            # The minimum of the parabola through value, slope and new value, within limits.
            shorter = (-linear / (2 * (excess - linear)))[~enough].clamp(0.1, 0.5)
            rest = rest[~enough]
            length[rest] *= shorter
        moved = (point != self.point).any(dim=1)
        return point, value, gradient, moved

"""The exponential moving average of weights, which often does better than the last ones."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages the parameters and the floating-point buffers of a module; copies other buffers.

    After n updates it is `decay` times the average before plus the rest times the weights, where
    `decay` is at most (1 + n) / (10 + n), so that the first weights are soon forgotten. `weights`
    has tied tensors under their first name.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {name: value.clone() for name, value in _distinct(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the weights after a step into account."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in _distinct(module).items():
            average = self.weights[name]
            if value.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Exchange the weights of the module with the average in this context, without a copy."""
        self._exchange(module)
        try:
            yield
        finally:
            self._exchange(module)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"model": self.weights, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state of `state_dict` for the same module."""
        for name, average in self.weights.items():
            average.copy_(state["model"][name])
        self.updates = state["updates"]

    @torch.no_grad()
    def _exchange(self, module: nn.Module) -> None:
        for name, value in _distinct(module).items():
            held = value.clone()
            value.copy_(self.weights[name])
            self.weights[name].copy_(held)


def _distinct(module: nn.Module) -> dict[str, Tensor]:
    """The state dict without further names of tied tensors."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        found.setdefault(id(value), (name, value.detach()))
    return dict(found.values())

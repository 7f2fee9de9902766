"""Lookahead (Zhang et al., 2019): every few steps the weights move back towards slow copies."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lookahead:
    """Wraps an optimizer: every `steps` of its steps, slow += alpha (fast − slow), fast = slow.

    The slow weights start as copies of the parameters; they and the counter are part of the state.
    """

    def __init__(self, optimizer: Optimizer, *, alpha: float, steps: int) -> None:
        self.optimizer = optimizer
        self.alpha = alpha
        self.steps = steps
        self.counter = 0
        self.slow = [parameter.detach().clone() for parameter in self._parameters()]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's groups."""
        return self.optimizer.param_groups

    @torch.no_grad()
    def step(self) -> None:
        """Step the wrapped optimizer; every `steps` calls, update the slow weights."""
        self.optimizer.step()
        self.counter = (self.counter + 1) % self.steps
        if self.counter == 0:
            for slow, fast in zip(self.slow, self._parameters(), strict=True):
                slow.lerp_(fast, self.alpha)
                fast.copy_(slow)

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, the slow weights in its groups' order, the counter."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "slow": self.slow,
            "counter": self.counter,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state of `state_dict`.

        Raises `ValueError`, before anything is changed, if shapes of the slow weights differ.
        """
        # Copying would broadcast a smaller tensor silently, and torch checks no shapes.
        if [saved.shape for saved in state["slow"]] != [slow.shape for slow in self.slow]:
            raise ValueError("the slow weights and the optimizer's parameters differ in shape")
        self.optimizer.load_state_dict(state["optimizer"])
        for slow, saved in zip(self.slow, state["slow"], strict=True):
            slow.copy_(saved)
        self.counter = state["counter"]

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


AnyOptimizer = Optimizer | Lookahead

"""Weights by name: which of a file's fit a module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def model_weights(state: Mapping[Any, Any]) -> dict[str, Any]:
    """The weights in a checkpoint's `state` by name: what is under `model`, or all of it."""
    inner = state.get("model")
    named = inner if isinstance(inner, Mapping) else state
    return {str(name): value for name, value in named.items()}


def misfits(own: Mapping[str, Tensor], weights: Mapping[str, Any]) -> list[str]:
    """What is missing in `weights`, left over or of another shape, in lines for a person."""
    other = [
        f"{name} {_shape(weights[name])} for {_shape(own[name])}"
        for name in own.keys() & weights.keys()
        if _shape(weights[name]) != _shape(own[name])
    ]
    wrong = {
        "missing": own.keys() - weights.keys(),
        "left over": weights.keys() - own.keys(),
        "of another shape": other,
    }
    return [
        f"  {len(names)} {what}: {', '.join(sorted(names)[:5])}"
        for what, names in wrong.items()
        if names
    ]


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__

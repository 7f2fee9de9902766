"""Tensors that a module holds under several names, such as the tied embedding and output."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def shared_names(module: nn.Module) -> list[list[str]]:
    """The names in the state dict of each tensor that has more than one, in order."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def completed(module: nn.Module, weights: Mapping[str, Any]) -> dict[str, Any]:
    """`weights`, and under each name that they lack what they hold of the same tensor."""
    whole = dict(weights)
    for group in shared_names(module):
        held = next((weights[name] for name in group if name in weights), None)
        if held is not None:
            whole = dict.fromkeys(group, held) | whole
    return whole


def contradictions(module: nn.Module, weights: Mapping[str, Any]) -> list[str]:
    """Pairs of names of one tensor under which `weights` hold different values, a line each."""
    return [
        f"  {first} and {name} differ, but are one tensor of the model"
        for group in shared_names(module)
        for first, name in _pairs(group, weights)
        if not _same(weights[first], weights[name])
    ]


def _pairs(group: list[str], weights: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    held = [name for name in group if name in weights]
    return ((held[0], name) for name in held[1:])


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.dtype != other.dtype:
        return False
    return one.is_set_to(other) or torch.equal(one, other)

"""State dicts: the published system's keys, tied tensors, and which weights fit a module.

The keys of the published system's release 1.4 are ours. In releases from 0.9 the transformers were
called `encoder`, and one visual projection stood at the top level for both heads.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from virtex.errors import first_few

_HEADS = ("textual", "backward_textual")
_PROJECTION = "visual_projection."
_ENCODER = re.compile(r"^((?:backward_)?textual\.)(?:transformer\.)?encoder\.(?=layers\.|norm\.)")
_WRAPPER = "module."  # of torch's parallel training, in files that were saved through it


def model_weights(state: Mapping[Any, Any]) -> dict[str, Any]:
    """The weights in a checkpoint's `state` by key: what is under `model`, or all of it."""
    inner = state.get("model")
    named = inner if isinstance(inner, Mapping) else state
    return {str(name): value for name, value in named.items()}


def state_dict_mismatches(own: Mapping[str, Tensor], weights: Mapping[str, Any]) -> list[str]:
    """Missing keys, unexpected keys and size mismatches of `weights`, a line each."""
    sizes = [
        f"{name} {_shape(weights[name])} instead of {_shape(own[name])}"
        for name in own.keys() & weights.keys()
        if _shape(weights[name]) != _shape(own[name])
    ]
    mismatches = {
        "missing keys": own.keys() - weights.keys(),
        "unexpected keys": weights.keys() - own.keys(),
        "size mismatch": sizes,
    }
    return [
        f"  {kind} ({len(names)}): {first_few(sorted(names))}"
        for kind, names in mismatches.items()
        if names
    ]


def tied_keys(module: nn.Module) -> list[list[str]]:
    """The keys of each tensor that the state dict holds under more than one, in order."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def fill_tied_keys(module: nn.Module, weights: Mapping[str, Any]) -> dict[str, Any]:
    """`weights`, completed under each missing key with the value of a key that it is tied to."""
    filled = dict(weights)
    for group in tied_keys(module):
        held = next((weights[name] for name in group if name in weights), None)
        if held is not None:
            filled = dict.fromkeys(group, held) | filled
    return filled


def tied_conflicts(module: nn.Module, weights: Mapping[str, Any]) -> list[str]:
    """Pairs of tied keys under which `weights` hold different values, a line each."""
    return [
        f"  {first} and {name} differ, but are tied in the model"
        for group in tied_keys(module)
        for first, name in _pairs(group, weights)
        if not _same(weights[first], weights[name])
    ]


def current_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under the keys of release 1.4, in order.

    A key without an older form is unchanged. So is one whose new form another entry has: it then
    counts as unexpected, and never hides the other.
    """
    if weights and all(name.startswith(_WRAPPER) for name in weights):
        weights = {name.removeprefix(_WRAPPER): value for name, value in weights.items()}
    heads = [head for head in _HEADS if any(name.startswith(f"{head}.") for name in weights)]
    renamed: dict[str, Any] = {}
    for name, value in weights.items():
        current = _current(name, heads)
        free = all(new not in weights and new not in renamed for new in current)
        renamed |= dict.fromkeys(current if free else [name], value)
    return renamed


def _current(name: str, heads: list[str]) -> list[str]:
    """The current keys of one entry in a file that has these `heads`."""
    if name.startswith(_PROJECTION) and heads:
        return [f"{head}.{name}" for head in heads]
    return [_ENCODER.sub(r"\1transformer.", name)]


def _pairs(group: list[str], weights: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    held = [name for name in group if name in weights]
    return ((held[0], name) for name in held[1:])


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.dtype != other.dtype:
        return False
    return one.is_set_to(other) or torch.equal(one, other)


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__

"""State dicts: the published system's keys, tied tensors, and which weights fit a module.

The keys of the published system's release 1.4 are ours. In releases from 0.9 the transformers were
called `encoder`, and one visual projection stood at the top level for both heads.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from virtex.errors import first_few

_HEADS = ("textual", "backward_textual")
_PROJECTION = "visual_projection."
_ENCODER = re.compile(r"^((?:backward_)?textual\.)(?:transformer\.)?encoder\.(?=layers\.|norm\.)")
_AUXILIARIES = "auxiliaries."
_WRAPPER = "module."  # of torch's parallel training, in files that were saved through it


def model_weights(state: Mapping[Any, Any]) -> dict[str, Any]:
    """The weights in a checkpoint's `state` by key: what is under `model`, or all of it."""
    inner = state.get("model")
    named = inner if isinstance(inner, Mapping) else state
    return {str(name): value for name, value in named.items()}


def state_dict_mismatches(own: Mapping[str, Tensor], weights: Mapping[str, Any]) -> list[str]:
    """A line each for missing keys, unexpected keys and size mismatches of `weights`."""
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


def is_count(name: str) -> bool:
    """Whether a key is of the counts of labels in the training data."""
    return "label_counts" in name.split(".")


def only_trains(name: str) -> bool:
    """Whether a key is of an auxiliary loss or of counts, which only training needs."""
    return name.startswith(_AUXILIARIES) or is_count(name)


def without_unused(weights: Mapping[str, Any], own: Mapping[str, Tensor]) -> dict[str, Any]:
    """`weights` without those that only training needs and a module with the state `own` lacks."""
    return {name: value for name, value in weights.items() if name in own or not only_trains(name)}


def tied_keys(module: nn.Module) -> list[list[str]]:
    """The keys of each tensor that the state dict holds under several keys, in order."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def fill_tied_keys(module: nn.Module, weights: Mapping[str, Any]) -> dict[str, Any]:
    """`weights` with each missing key that is tied to an existing one added."""
    filled = dict(weights)
    for group in tied_keys(module):
        held = next((weights[name] for name in group if name in weights), None)
        if held is not None:
            filled = dict.fromkeys(group, held) | filled
    return filled


def tied_conflicts(module: nn.Module, weights: Mapping[str, Any]) -> list[str]:
    """A line for each pair of tied keys with different values in `weights`."""
    lines = []
    for group in tied_keys(module):
        held = [name for name in group if name in weights]
        lines += [
            f"  {held[0]} and {name} differ, but are tied in the model"
            for name in held[1:]
            if not _same(weights[held[0]], weights[name])
        ]
    return lines


def current_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under the keys of release 1.4, in order.

    A key without an older form is unchanged. So is a key whose new form exists already: it is then
    reported as unexpected and does not hide the other.
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


def _same(one: object, other: object) -> bool:
    if one is other:
        return True
    if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.dtype != other.dtype:
        return False
    return one.is_set_to(other) or torch.equal(one, other)


def _shape(value: object) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__

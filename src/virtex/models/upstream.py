"""The published system's checkpoints: our names of parameters from those of its releases 0.9 … 1.4.

The names of 1.4 are ours. Before, the transformers were `encoder` instead of `transformer`, and one
visual projection stood at the top for both heads.
"""

import re
from collections.abc import Mapping
from typing import Any

_HEADS = ("textual", "backward_textual")
_PROJECTION = "visual_projection."
_ENCODER = re.compile(r"^((?:backward_)?textual\.)(?:transformer\.)?encoder\.(?=layers\.|norm\.)")
_WRAPPER = "module."  # of torch's parallel training, in files that were saved through it


def current_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under our names, in order.

    What has no older name goes through. So does what would take the name of another entry: it is
    then left over, and never hides the other.
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
    """Our names of one entry in a file that has these `heads`."""
    if name.startswith(_PROJECTION) and heads:
        return [f"{head}.{name}" for head in heads]
    return [_ENCODER.sub(r"\1transformer.", name)]

"""The published system's checkpoints: our names of parameters from those of its releases 0.9 … 1.4.

The names of 1.4 are ours. Before, the transformers were `encoder` instead of `transformer`, and one
visual projection stood at the top for both heads.
"""

import re
from collections.abc import Mapping
from typing import Any

_HEADS = ("textual", "backward_textual")
_PROJECTION = "visual_projection."
_ENCODER = re.compile(r"((?:backward_)?textual\.)(?:transformer\.)?encoder\.")
_WRAPPER = "module."  # of torch's parallel training, in files that were saved through it


def current_names(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The same values under our names, in order; names that are none of those go through."""
    if weights and all(name.startswith(_WRAPPER) for name in weights):
        weights = {name.removeprefix(_WRAPPER): value for name, value in weights.items()}
    renamed: dict[str, Any] = {}
    backward = any(name.startswith("backward_textual.") for name in weights)
    for name, value in weights.items():
        if name.startswith(_PROJECTION):
            for head in _HEADS if backward else _HEADS[:1]:
                renamed[f"{head}.{name}"] = value
        else:
            renamed[_ENCODER.sub(r"\1transformer.", name)] = value
    return renamed

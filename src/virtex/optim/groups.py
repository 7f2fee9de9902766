"""Parameter groups: visual or textual, with weight decay or without."""

import re
from typing import TypedDict

from torch import nn


class ParameterGroup(TypedDict):
    """A group for torch's optimizers; `lr` is `peak_lr` times the factor of the schedule."""

    name: str
    params: list[nn.Parameter]
    lr: float
    peak_lr: float
    weight_decay: float


def parameter_groups(
    module: nn.Module, *, visual_lr: float, textual_lr: float, weight_decay: float, no_decay: str
) -> list[ParameterGroup]:
    """The trainable parameters of `module`, grouped.

    Those below `visual` learn at `visual_lr`, the rest at `textual_lr`. A parameter whose name
    matches the regular expression `no_decay` from its start has no weight decay. Empty groups are
    omitted.
    """
    exempt = re.compile(no_decay)
    groups: dict[str, ParameterGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        visual = name.startswith("visual.")
        decayed = exempt.match(name) is None
        rate = visual_lr if visual else textual_lr
        key = f"{'visual' if visual else 'textual'}_{'decayed' if decayed else 'undecayed'}"
        group: ParameterGroup = {
            "name": key,
            "params": [],
            "lr": rate,
            "peak_lr": rate,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        groups.setdefault(key, group)["params"].append(parameter)
    return list(groups.values())

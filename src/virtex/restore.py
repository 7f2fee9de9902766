"""A checkpoint's weights into a model, and a whole model from a checkpoint alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from virtex import build
from virtex.config import Config
from virtex.errors import UserError
from virtex.runtime import checkpoint
from virtex.tasks.captioning import Captioning
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Restored:
    """What a checkpoint of ours holds: its model on the CPU, in evaluation mode."""

    config: Config
    tokenizer: Tokenizer
    objective: Captioning


def restore(path: Path) -> Restored:
    """The model of a checkpoint of `virtex pretrain`; raises `UserError` for other files."""
    state = checkpoint.load(path)
    if "config" not in state or "tokenizer" not in state:
        raise UserError(
            f"{path} holds no configuration and vocabulary; give a checkpoint that virtex saved"
        )
    try:
        config = Config.model_validate_json(json.dumps(state["config"]), by_alias=True)
    except ValidationError as error:
        raise UserError(
            f"{path} holds a configuration that this version of virtex does not read: {error}"
        ) from error
    objective = build.objective(config)
    load_weights(objective, state, path)
    objective.eval()
    tokenizer = Tokenizer.from_bytes(bytes(state["tokenizer"].numpy()))
    return Restored(config, tokenizer, objective)


def load_weights(module: nn.Module, state: Mapping[str, Any], source: Path) -> None:
    """Load the weights of a checkpoint's `state`, under `model` or bare.

    Raises `UserError` that names what is missing, left over or of another shape.
    """
    weights = state.get("model", state)
    own = module.state_dict()
    other = [
        f"{name} {list(weights[name].shape)} for {list(own[name].shape)}"
        for name in own.keys() & weights.keys()
        if weights[name].shape != own[name].shape
    ]
    wrong = {
        "missing": own.keys() - weights.keys(),
        "left over": weights.keys() - own.keys(),
        "of another shape": other,
    }
    lines = [
        f"  {len(names)} {what}: {', '.join(sorted(names)[:5])}"
        for what, names in wrong.items()
        if names
    ]
    if lines:
        raise UserError(
            f"the weights of {source} do not fit the configured model:\n" + "\n".join(lines)
        )
    module.load_state_dict(weights)

"""Taking over what a checkpoint holds: weights, a run to go on with, or a whole model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from virtex import __version__, build
from virtex.config import Config
from virtex.errors import UserError
from virtex.models.weights import misfits, model_weights
from virtex.runtime import checkpoint
from virtex.tasks.captioning import Captioning
from virtex.text.tokenizer import Tokenizer

_SHAPES_OF_THE_OPTIMIZER = {
    "OPTIM.OPTIMIZER_NAME",
    "OPTIM.LOOKAHEAD.USE",
    "OPTIM.NO_DECAY",
    "MODEL.VISUAL.FROZEN",
}
"""Settings that decide what the optimizer's state holds, so that they cannot change in a run."""


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
    config = _saved_config(state)
    objective = build.objective(config, weights_follow=True)
    load_weights(objective, state, str(path))
    objective.eval()
    tokenizer = Tokenizer.from_bytes(bytes(state["tokenizer"].numpy()))
    return Restored(config, tokenizer, objective)


def load_weights(module: nn.Module, state: Mapping[str, Any], source: str) -> None:
    """Load the weights of a checkpoint's `state`, under `model` or bare.

    Raises `UserError` that names what is missing, left over or of another shape.
    """
    weights = model_weights(state)
    lines = misfits(module.state_dict(), weights)
    if lines:
        raise UserError(
            f"the weights of {source} do not fit the configured model:\n" + "\n".join(lines)
        )
    module.load_state_dict(weights)


def load_optimizer(optimizer: build.AnyOptimizer, state: dict[str, Any]) -> None:
    """Take over averages and counters; rates, decay and momentum stay as they are configured."""
    configured = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, configured, strict=True):
        group.update(settings)


def check_same_run(
    state: Mapping[str, Any], config: Config, tokenizer: Tokenizer, *, asked_for: Sequence[str]
) -> list[str]:
    """What differs from the checkpoint's configuration, in lines for a person.

    Raises `UserError` where a key differs that is not among `asked_for`, where one cannot change
    in the middle of a run, and where the vocabulary is another.
    """
    # Through the model, so that a setting that is newer than the checkpoint has its default.
    saved = _flat(_saved_config(state).model_dump(mode="json", by_alias=True))
    now = _flat(config.model_dump(mode="json", by_alias=True))
    changed = {key for key in saved.keys() | now.keys() if saved.get(key) != now.get(key)}
    fixed = sorted(changed & _SHAPES_OF_THE_OPTIMIZER)
    if fixed:
        raise UserError(
            f"--resume-from: {', '.join(fixed)} cannot change in the middle of a run; begin a new "
            "one with the weights alone: --init-from"
        )
    unasked = sorted(changed - set(asked_for))
    if unasked:
        lines = [f"  {key}: was {saved.get(key)!r}, is {now.get(key)!r}" for key in unasked]
        raise UserError(
            "--resume-from: the configuration is not the one that the checkpoint was made with:\n"
            + "\n".join(lines)
            + "\nMend the YAML file, or say that you mean it by repeating the new value after "
            "--config-override; --init-from begins a new run with the weights alone"
        )
    if not torch.equal(state["tokenizer"], tokenizer_tensor(tokenizer)):
        raise UserError(
            f"--resume-from: {config.data.tokenizer_model} is not the vocabulary that the "
            "checkpoint was trained with; its tokens would mean other words"
        )
    return [f"changed on request: {key}, was {saved.get(key)!r}" for key in sorted(changed)]


def _saved_config(state: Mapping[str, Any]) -> Config:
    """A checkpoint's configuration; raises `UserError` if this version does not know it."""
    try:
        return Config.model_validate_json(json.dumps(state["config"]), by_alias=True)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise UserError(
            f"the checkpoint holds settings that virtex {__version__} does not accept: {keys}; use "
            "the version that saved it"
        ) from error


def tokenizer_tensor(tokenizer: Tokenizer) -> Tensor:
    """The vocabulary's file, (bytes,) uint8, as a checkpoint holds it."""
    return torch.frombuffer(bytearray(tokenizer.model_bytes), dtype=torch.uint8)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat

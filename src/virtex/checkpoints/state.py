"""The meaning of a checkpoint's state: weights, settings, vocabulary, optimizer and data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, assert_never

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from virtex._version import __version__
from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.model_directory import is_model_directory, read_model
from virtex.config.schema import Config
from virtex.data.contents import Contents, from_plain
from virtex.errors import UserError, first_few
from virtex.models.modes import materialise
from virtex.models.state_dict import (
    current_names,
    fill_tied_keys,
    model_weights,
    state_dict_mismatches,
    tied_conflicts,
    without_unused,
)
from virtex.optim.lookahead import AnyOptimizer, Lookahead
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Categories, Classes, Vocabulary


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file of virtex, a published one, or weights alone.

    `source` names it in messages. A property raises `UserError` if the file does not hold it, or
    holds it in a form that this version does not accept.
    """

    source: str
    state: Mapping[str, Any]

    @property
    def is_own(self) -> bool:
        """Whether a run of virtex saved it, with its configuration and vocabulary."""
        versions = self.state.get("versions")
        return isinstance(versions, Mapping) and "virtex" in versions

    @cached_property
    def config(self) -> Config:
        """The configuration of the run that saved the checkpoint."""
        try:
            return Config.model_validate_json(json.dumps(self.state.get("config")), by_alias=True)
        except TypeError as error:
            raise UserError(f"the checkpoint's settings are not virtex's: {error}") from error
        except ValidationError as error:
            keys = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
            raise UserError(
                f"the checkpoint holds settings that virtex {__version__} does not accept: {keys};"
                " use the version that saved it"
            ) from error

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that the model was trained with."""
        kinds = ("tokenizer", "categories", "classes")
        match tuple(self.state.get(kind) for kind in kinds):
            case Tensor(dtype=torch.uint8, ndim=1) as model, _, _:
                return Tokenizer.from_bytes(model.numpy().tobytes())
            case None, [*names], _ if _are_names(names):
                return Categories(tuple(names))
            case None, None, {"names": [*names], "several": bool(several)} if _are_names(names):
                return Classes(tuple(names), several)
        raise UserError(
            "the checkpoint holds no vocabulary under 'tokenizer', 'categories' or 'classes'"
        )

    @property
    def samples_seen(self) -> int:
        """The number of training images that the run had taken, each repetition counted."""
        seen = self._progress.get("samples_seen")
        if type(seen) is int:
            return seen
        return int(self.state["iteration"]) * self.config.optim.batch_size

    @property
    def num_epochs(self) -> float | None:
        """The `OPTIM.NUM_EPOCHS` of the run; None if it gave the number of iterations."""
        epochs = self._progress.get("num_epochs")
        return epochs if isinstance(epochs, float) else None

    @property
    def _progress(self) -> Mapping[str, Any]:
        progress = self.state.get("progress")  # which earlier versions did not save
        return progress if isinstance(progress, Mapping) else {}

    @property
    def contents(self) -> Contents | None:
        """Fingerprints of the data; None in checkpoints of versions that did not save them."""
        return from_plain(self.state.get("data"))

    @cached_property
    def weights(self) -> Mapping[str, Any]:
        """The weights by their current names, for a checkpoint of any release."""
        weights = current_names(model_weights(self.state))
        if not any(isinstance(value, Tensor) for value in weights.values()):
            held = first_few(sorted(map(str, self.state)), 8) or "nothing"
            raise UserError(
                f"{self.source} holds no weights, neither under 'model' nor by themselves; it holds"
                f" {held}. Give a checkpoint or a file that holds only the state dict"
            )
        return weights


def read(path: Path, *, average: bool = False) -> Checkpoint:
    """The checkpoint in a file, or the same with its `average` of the weights in their place.

    The directory of a whole model, as `virtex export virtex` writes it, counts as a checkpoint.
    Raises `UserError` if it cannot be read or has no average.
    """
    state = read_model(path) if is_model_directory(path) else checkpoint.load(path)
    if not average:
        return Checkpoint(str(path), state)
    held = state.get("average")
    if not isinstance(held, Mapping) or "model" not in held:
        raise UserError(
            f"{path} holds no average of the weights; take its weights themselves, or a checkpoint "
            "of a run with OPTIM.EMA.DECAY"
        )
    return Checkpoint(str(path), {**state, "model": held["model"]})


def load_weights(module: nn.Module, saved: Checkpoint, per_token: str) -> None:
    """Load a checkpoint's weights; a module on the meta device is materialised first.

    `per_token` names a weight (V,) whose size is the vocabulary's. Raises `UserError` if the
    checkpoint holds no weights, and one that names the missing and unexpected keys, and those with
    another shape, for another vocabulary, or with different values for tied weights.
    """
    own = module.state_dict()
    weights = fill_tied_keys(module, without_unused(saved.weights, own))
    lines = [
        *_other_vocabulary(own, weights, per_token),
        *tied_conflicts(module, weights),
        *state_dict_mismatches(own, weights),
    ]
    if lines:
        raise UserError(
            f"the weights of {saved.source} do not fit the configured model; give the MODEL "
            "settings that they were trained with:\n" + "\n".join(lines)
        )
    materialise(module)
    module.load_state_dict(weights)


def _other_vocabulary(
    own: Mapping[str, Tensor], weights: Mapping[str, Any], per_token: str
) -> list[str]:
    """A line if the shapes differ because the weights are for a vocabulary of another size."""
    configured, held = own.get(per_token), weights.get(per_token)
    if configured is None or not isinstance(held, Tensor) or held.shape == configured.shape:
        return []
    return [
        f"  they are for a vocabulary of {held.numel()}, DATA.VOCAB_SIZE is {configured.numel()}: "
        "give the configuration and the vocabulary that they were trained with"
    ]


def load_optimizer(optimizer: AnyOptimizer, state: dict[str, Any]) -> None:
    """Load averages, counters and the last step's rates; all other options stay as configured.

    The rates of the next step follow from the configured `peak_lr`. Saved before that step, the
    optimizer's state equals the loaded one. Raises `UserError` for the state of another optimizer.
    """
    configured = [
        {name: value for name, value in group.items() if name not in ("params", "lr")}
        for group in optimizer.param_groups
    ]
    try:
        optimizer.load_state_dict(state)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"--resume-from: the checkpoint's 'optimizer' does not fit this run ({error}); start a "
            "new run from its weights with --init-from"
        ) from error
    for group, own in zip(optimizer.param_groups, configured, strict=True):
        group.update(own)
    _adopt_layout(optimizer.optimizer if isinstance(optimizer, Lookahead) else optimizer)


def _adopt_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give averages the memory layout of their parameters, which CHANNELS_LAST may have changed.

    torch's fused kernels assume that the layouts are equal, and otherwise compute nonsense.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter).copy_(value)


def vocabulary_state(vocabulary: Vocabulary) -> dict[str, Any]:
    """The entries of a checkpoint that hold a vocabulary."""
    match vocabulary:
        case Tokenizer():
            data = bytearray(vocabulary.model_bytes)
            return {"tokenizer": torch.frombuffer(data, dtype=torch.uint8), "categories": None}
        case Categories():
            return {"tokenizer": None, "categories": list(vocabulary.names)}
        case Classes():
            names, several = list(vocabulary.names), vocabulary.several
            return {
                "tokenizer": None,
                "categories": None,
                "classes": {"names": names, "several": several},
            }
        case _:
            assert_never(vocabulary)


def _are_names(values: Sequence[object]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)

"""A pretrained model, whole: from one of our checkpoints, or from weights and a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex import build, build_tasks, settings
from virtex.build_tasks import Vocabulary
from virtex.config import Config
from virtex.errors import UserError
from virtex.restore import load_weights, saved_config, saved_vocabulary
from virtex.runtime import checkpoint
from virtex.tasks.base import Objective
from virtex.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode, with what it takes to use it."""

    config: Config
    vocabulary: Vocabulary
    objective: Objective


def load(
    path: str | Path, *, config: str | Path | None = None, tokenizer: str | Path | None = None
) -> Pretrained:
    """The model of a checkpoint, on the CPU.

    A checkpoint of ours is self-contained. A published one (a mapping with `model`, of any release
    from 0.9 on) and a bare state dict need `config`, the YAML of their run; their vocabulary is
    `tokenizer`, else the configuration's `DATA.TOKENIZER_MODEL`. Given for a checkpoint of ours,
    both replace what it holds.

    Raises `UserError` where the file cannot be read, where weights are missing, left over or of
    another shape, and where the vocabulary does not fit them.
    """
    path = Path(path)
    state = checkpoint.load(path)
    resolved = _config(path, state, config)
    vocabulary, source = _vocabulary(path, state, resolved, tokenizer)
    build_tasks.check_vocabulary(resolved, vocabulary, source)
    objective = build.objective(resolved, weights_follow=True)
    load_weights(objective, state, str(path))
    objective.eval()
    return Pretrained(resolved, vocabulary, objective)


def _config(path: Path, state: Mapping[str, Any], given: str | Path | None) -> Config:
    if given is not None:
        return settings.load(Config, Path(given))
    if "config" not in state:
        raise UserError(
            f"{path} holds weights but no configuration; name the YAML file of their run as well "
            "(--config FILE on the command line, config= in Python)"
        )
    return saved_config(state)


def _vocabulary(
    path: Path, state: Mapping[str, Any], config: Config, given: str | Path | None
) -> tuple[Vocabulary, str]:
    """The vocabulary, and where it comes from."""
    if given is not None:
        return Tokenizer.from_file(Path(given)), str(given)
    if "tokenizer" in state:
        return saved_vocabulary(state), f"in {path}"
    return build_tasks.published_vocabulary(config)

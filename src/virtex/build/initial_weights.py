"""The weights that a new run takes from a file: all, those that fit its vocabulary, or a backbone.

What is not taken is as in a new model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from virtex.build.pixel_choice import weights_for_bands
from virtex.checkpoints.resuming import same_vocabulary
from virtex.checkpoints.state import Checkpoint, load_weights, read
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.models.networks import Network, backbone_weights, find_family
from virtex.models.state_dict import (
    fill_tied_keys,
    is_count,
    only_trains,
    state_dict_mismatches,
    tied_conflicts,
    without_unused,
)
from virtex.tasks.base import WEIGHT_PER_TOKEN, Objective
from virtex.text.tokenizer import Tokenizer
from virtex.text.vocabulary import Vocabulary, entries

InitParts = Literal["backbone", "all"]

_PER_ENTRY = re.compile(r"(.*\.)?(embedding\.words\.weight|output\.(weight|bias))")
"""The names of weights that have a row for each entry of the vocabulary."""


@dataclass(frozen=True)
class InitialWeights:
    """A file of weights for a new run, and the parts of it to take.

    With `parts` None all weights are taken, and must fit. `tokenizer` is the file of their
    vocabulary; None stands for the one that they are saved with.
    """

    path: Path
    parts: InitParts | None = None
    tokenizer: Path | None = None

    @property
    def source(self) -> str:
        """The name of the file in messages."""
        return f"--init-from {self.path}"


@dataclass(frozen=True)
class Taken:
    """Lines for the log about what was taken; `cautions` are warnings."""

    notes: tuple[str, ...]
    cautions: tuple[str, ...] = ()


def initial_weights(
    path: Path | None, parts: InitParts | None, tokenizer: Path | None
) -> InitialWeights | None:
    """The weights that the flags of a new run ask for; raises `UserError` if one lacks another."""
    if path is None and parts is not None:
        raise UserError(f"--init-parts {parts}: give the file to take them from with --init-from")
    if tokenizer is not None and parts != "all":
        raise UserError(
            f"--init-tokenizer {tokenizer} applies only to --init-parts all; add that, or remove it"
        )
    return None if path is None else InitialWeights(path, parts, tokenizer)


def check_initial_weights(initial: InitialWeights) -> None:
    """Raise `UserError` for files that do not exist or are not a vocabulary."""
    if not initial.path.is_file():
        raise UserError(f"{initial.source}: no such file")
    if initial.tokenizer is not None:
        Tokenizer.from_file(initial.tokenizer)


def take_weights(
    objective: Objective, initial: InitialWeights, config: Config, vocabulary: Vocabulary
) -> Taken:
    """Load the parts of a file into a new model with this vocabulary.

    Raises `UserError` for a file that cannot be read or has weights that do not fit.
    """
    saved = Checkpoint(initial.source, read(initial.path).state)
    known = _vocabulary(initial, saved)
    saved = weights_for_bands(objective.visual, saved)
    if initial.parts == "backbone":
        return _take_backbone(objective, saved, config)
    added = _new_in_run(objective, saved)
    differs = known is not None and not same_vocabulary(known, vocabulary)
    if initial.parts == "all":
        if known is None:
            raise UserError(
                f"{initial.source} holds no vocabulary, so it is not known which pieces its rows "
                "stand for; give its file with --init-tokenizer, or take --init-parts backbone"
            )
        if differs:
            return _take_fitting(objective, saved, known, vocabulary, added)
    weights = Checkpoint(saved.source, {"model": {**saved.weights, **added}})
    load_weights(objective, weights, WEIGHT_PER_TOKEN)
    notes = (f"{_tensors(objective.state_dict(), added)} are those of {saved.source}",)
    if not differs:
        return Taken(notes)
    return Taken(
        notes,
        (
            f"the vocabulary of {saved.source} is another one of the same size, so its rows stand "
            "for other pieces; --init-parts all gives the rows of equal pieces to the new ids",
        ),
    )


def _vocabulary(initial: InitialWeights, saved: Checkpoint) -> Vocabulary | None:
    """The vocabulary of the weights; None if nothing tells it."""
    if initial.tokenizer is not None:
        return Tokenizer.from_file(initial.tokenizer)
    try:
        return saved.vocabulary
    except UserError:  # published weights have none
        return None


def _new_in_run(objective: Objective, saved: Checkpoint) -> dict[str, Tensor]:
    """What a run does not take from a file: counts, which are of its own data, and auxiliaries that
    the file lacks."""
    return {
        name: value
        for name, value in objective.state_dict().items()
        if is_count(name) or (only_trains(name) and name not in saved.weights)
    }


def _tensors(own: Mapping[str, Tensor], added: Mapping[str, Tensor]) -> str:
    if not added:
        return f"weights: all {len(own)} tensors"
    return f"weights: {len(own) - len(added)} tensors ({len(added)} others are new in this run)"


def _take_backbone(objective: Objective, saved: Checkpoint, config: Config) -> Taken:
    cnn, name = objective.visual.cnn, config.model.visual.network
    weights = backbone_weights(Network(name, find_family(name), cnn), saved.weights)
    mismatches = state_dict_mismatches(cnn.state_dict(), weights)
    if mismatches:
        raise UserError(
            f"the backbone of {saved.source} does not fit {name}; give the MODEL.VISUAL settings "
            "that it was trained with:\n" + "\n".join(mismatches)
        )
    cnn.load_state_dict(weights)
    taken, new = len(weights), len(objective.state_dict()) - len(weights)
    return Taken(
        (
            f"weights: the {taken} tensors of the backbone are those of {saved.source}",
            f"weights: the other {new} tensors are as in a new model (--init-parts backbone)",
        )
    )


def _take_fitting(
    objective: Objective,
    saved: Checkpoint,
    known: Vocabulary,
    vocabulary: Vocabulary,
    added: Mapping[str, Tensor],
) -> Taken:
    """Load all weights, and of those for each entry the rows of entries of both vocabularies."""
    old, new = entries(known), entries(vocabulary)
    own = objective.state_dict()
    weights = fill_tied_keys(objective, without_unused(saved.weights, own))
    lines = [] if type(known) is type(vocabulary) else ["  the vocabularies are of different kinds"]
    lines += tied_conflicts(objective, weights)
    held = own.keys() & weights.keys() - added.keys()
    per_entry = [name for name in held if _PER_ENTRY.fullmatch(name)]
    lines += _other_sizes(saved.source, weights, per_entry, len(old))
    if not lines:
        shared = [(index, old[piece]) for piece, index in new.items() if piece in old]
        weights |= {name: _merged(own[name], weights[name], shared) for name in per_entry}
        weights |= added
        lines = state_dict_mismatches(own, weights)
    if lines:
        raise UserError(
            f"the weights of {saved.source} do not fit the configured model; give the MODEL "
            "settings that they were trained with, or --init-parts backbone:\n" + "\n".join(lines)
        )
    objective.load_state_dict(weights)
    return Taken(
        (
            f"{_tensors(own, added)} are those of {saved.source}, but {len(per_entry)} of them "
            "only in the rows of pieces that both vocabularies have",
            f"vocabulary: {len(shared):,} of {len(new):,} pieces are also among the {len(old):,} "
            f"of {saved.source} and keep their rows; those of the other {len(new) - len(shared):,} "
            f"are as in a new model, and {len(old) - len(shared):,} rows of the file are not used",
        )
    )


def _other_sizes(
    source: str, weights: Mapping[str, Any], per_entry: Sequence[str], size: int
) -> list[str]:
    """A line for each of these weights that is not for a vocabulary of the size."""
    return [
        f"  {name} of {source} is {list(weight.shape)}, but its vocabulary has {size} entries"
        for name in sorted(per_entry)
        if isinstance(weight := weights[name], Tensor) and weight.shape[:1] != (size,)
    ]


def _merged(own: Tensor, given: Any, rows: Sequence[tuple[int, int]]) -> Any:
    """`own` with rows of `given`, as pairs of their indices; `given` if it is of another shape."""
    if not isinstance(given, Tensor) or given.shape[1:] != own.shape[1:]:
        return given
    merged = own.clone()
    ours, theirs = zip(*rows, strict=True) if rows else ((), ())
    merged[list(ours)] = given[list(theirs)].to(merged)
    return merged

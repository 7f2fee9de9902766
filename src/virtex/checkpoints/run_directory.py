"""The directory of a run: what lies where, and how a run begins in it or goes on.

`config.yaml` (resolved), `subset.json` (the images, where not all are trained on),
`checkpoint_{iteration}.pth`, `log_rank{rank}.txt`, `scalars.jsonl` and TensorBoard's event files.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.file import DamagedCheckpoint
from virtex.errors import UserError

CONFIG = "config.yaml"
LATEST = "latest"
RUN_KEYS = ("iteration", "model", "optimizer", "scaler", "config", "tokenizer")
"""What a checkpoint must hold for a run to go on from it."""


@dataclass(frozen=True)
class Start:
    """Where a run begins: after `iteration` steps, with a checkpoint's `state` unless it is new.

    `validation_due` says that a request to stop came before the validation after these steps.
    Checkpoints up to iteration `untouched` may be of a version that kept them all.
    `notes` and `cautions` are lines for a person, who should look at the latter.
    """

    iteration: int
    state: dict[str, Any] | None
    notes: tuple[str, ...]
    validation_due: bool = False
    untouched: int = -1
    cautions: tuple[str, ...] = ()

    def without_state(self) -> "Start":
        """The same place, when the state is no longer needed."""
        return replace(self, state=None)


def holds_run(directory: Path) -> bool:
    """Whether a run has begun in this directory."""
    return (directory / CONFIG).exists() or bool(checkpoint.checkpoints(directory))


def check_free(directory: Path) -> None:
    """Raise `UserError` unless a new run can begin in `directory`."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--serialization-dir {directory} is a file; give a directory")
    if holds_run(directory):
        saved = bool(checkpoint.checkpoints(directory))
        raise UserError(
            f"--serialization-dir {directory} holds a run already"
            f"{'' if saved else ', which has saved no checkpoint'}; continue it with --resume-from "
            f"latest{'' if saved else ', which begins at iteration 1'}, or give another directory"
        )


def find_start(directory: Path, resume_from: str) -> Start:
    """Where a run that resumes goes on: at `resume_from`, a file, or `latest` in `directory`.

    Raises `UserError` where there is nothing to go on from, where the file is damaged (naming the
    one before it), and where newer checkpoints in the directory would be overwritten.
    """
    if resume_from == LATEST:
        return _latest(directory)
    path = Path(resume_from)
    try:
        state = checkpoint.load(path)
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"{error}; {_alternative(path)}") from error
    _check_complete(path, state)
    iteration = state["iteration"]
    if path.parent.resolve() != directory.resolve():
        check_free(directory)
    newer = checkpoint.newest_readable(directory, after=iteration)
    if newer is not None:
        raise UserError(
            f"--resume-from {path} is iteration {iteration}, but {directory} already holds "
            f"{newer[0].name}; go on with --resume-from latest, or give another --serialization-dir"
        )
    return _from(state, f"going on from {path}, iteration {iteration}")


def _latest(directory: Path) -> Start:
    found = checkpoint.newest_readable(directory)
    if found is not None:
        path, state, damaged = found
        _check_complete(path, state)
        notes = [f"{bad} is damaged; the one before it is used" for bad in damaged]
        notes.append(f"going on from {path}, iteration {state['iteration']}")
        return _from(state, *notes)
    damaged_only = checkpoint.checkpoints(directory)
    if damaged_only:
        names = ", ".join(path.name for path in damaged_only)
        raise DamagedCheckpoint(f"no checkpoint in {directory} can be read; damaged: {names}")
    if not holds_run(directory):
        raise UserError(
            f"--resume-from latest: there is no run in {directory}; check --serialization-dir, or "
            "leave --resume-from out to begin a new run"
        )
    return Start(0, None, (f"no checkpoint in {directory} yet: beginning at iteration 1",))


def _from(state: dict[str, Any], *notes: str) -> Start:
    # Checkpoints of older versions were written after the validation, and were all kept.
    untouched = state.get("untouched", state["iteration"])
    return Start(state["iteration"], state, notes, not state.get("validated", True), untouched)


def _check_complete(path: Path, state: dict[str, Any]) -> None:
    lacking = [key for key in RUN_KEYS if key not in state]
    if lacking or type(state["iteration"]) is not int:
        raise UserError(
            f"{path} holds no {', '.join(lacking) or 'iteration'}, so a run cannot go on from it; "
            "begin a new run from its weights with --init-from"
        )


def _alternative(path: Path) -> str:
    iteration = checkpoint.checkpoint_iteration(path)
    found = checkpoint.newest_readable(path.parent, before=iteration)
    if found is None:
        return "there is no older checkpoint beside it"
    return f"the one before it is whole: --resume-from {found[0]}"

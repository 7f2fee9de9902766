"""The directory of a run: its files, and how a run starts in it or resumes.

`config.yaml` (resolved), `subset.json` (the images, if not all are trained on),
`checkpoint_{iteration}.pth`, `log_rank{rank}.txt`, `scalars.jsonl` and TensorBoard's event files.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from virtex.checkpoints.file import (
    DamagedCheckpoint,
    checkpoint_iteration,
    checkpoints,
    load,
    newest_readable,
)
from virtex.errors import UserError

CONFIG = "config.yaml"
LATEST = "latest"
RUN_KEYS = ("iteration", "model", "optimizer", "scaler", "config", "tokenizer")
"""The keys that a checkpoint must hold for a run to resume from it."""


@dataclass(frozen=True)
class ResumePoint:
    """The point from which a run starts: after `iteration` steps, with a checkpoint's `state`.

    `state` is None for a new run. `validation_due` means that a request to stop preceded the
    validation after these steps. Checkpoints up to iteration `untouched` may be from a version that
    kept them all. `notes` and `cautions` are messages; the latter are logged as warnings.
    """

    iteration: int
    state: dict[str, Any] | None
    notes: tuple[str, ...]
    validation_due: bool = False
    untouched: int = -1
    cautions: tuple[str, ...] = ()

    def without_state(self) -> "ResumePoint":
        """The same point without the state, which takes much memory."""
        return replace(self, state=None)


def holds_run(directory: Path) -> bool:
    """Whether a run has started in this directory."""
    return (directory / CONFIG).exists() or bool(checkpoints(directory))


def check_free(directory: Path) -> None:
    """Raise `UserError` unless a new run can start in `directory`."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--serialization-dir {directory} is a file; give a directory")
    if holds_run(directory):
        saved = bool(checkpoints(directory))
        raise UserError(
            f"--serialization-dir {directory} already holds a run"
            f"{'' if saved else ', which has saved no checkpoint'}; continue it with --resume-from "
            f"latest{'' if saved else ', which starts at iteration 1'}, or give another directory"
        )


def find_start(directory: Path, resume_from: str) -> ResumePoint:
    """The point from which a run resumes: `resume_from`, a file, or `latest` in `directory`.

    Raises `UserError` if there is nothing to resume from, if the file is damaged (naming the
    previous one), and if newer checkpoints in the directory would be overwritten.
    """
    if resume_from == LATEST:
        return _latest(directory)
    path = Path(resume_from)
    try:
        state = load(path)
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(f"{error}; {_alternative(path)}") from error
    _check_complete(path, state)
    iteration = state["iteration"]
    if path.parent.resolve() != directory.resolve():
        check_free(directory)
    newer = newest_readable(directory, after=iteration)
    if newer is not None:
        raise UserError(
            f"--resume-from {path} is iteration {iteration}, but {directory} already holds "
            f"{newer[0].name}; use --resume-from latest, or give another --serialization-dir"
        )
    return _from(state, f"resuming from {path}, iteration {iteration}")


def _latest(directory: Path) -> ResumePoint:
    found = newest_readable(directory)
    if found is not None:
        path, state, damaged = found
        _check_complete(path, state)
        notes = [f"{bad} is damaged; the previous one is used" for bad in damaged]
        notes.append(f"resuming from {path}, iteration {state['iteration']}")
        return _from(state, *notes)
    damaged_only = checkpoints(directory)
    if damaged_only:
        names = ", ".join(path.name for path in damaged_only)
        raise DamagedCheckpoint(f"no checkpoint in {directory} is intact; damaged: {names}")
    if not holds_run(directory):
        raise UserError(
            f"--resume-from latest: there is no run in {directory}; check --serialization-dir, or "
            "omit --resume-from to start a new run"
        )
    return ResumePoint(0, None, (f"no checkpoint in {directory} yet: starting at iteration 1",))


def _from(state: dict[str, Any], *notes: str) -> ResumePoint:
    # Checkpoints of older versions were written after the validation, and were all kept.
    untouched = state.get("untouched", state["iteration"])
    return ResumePoint(
        state["iteration"], state, notes, not state.get("validated", True), untouched
    )


def _check_complete(path: Path, state: dict[str, Any]) -> None:
    lacking = [key for key in RUN_KEYS if key not in state]
    if lacking or type(state["iteration"]) is not int:
        raise UserError(
            f"{path} holds no {', '.join(lacking) or 'iteration'}, so a run cannot resume from it; "
            "start a new run from its weights with --init-from"
        )


def _alternative(path: Path) -> str:
    iteration = checkpoint_iteration(path)
    found = newest_readable(path.parent, before=iteration)
    if found is None:
        return "there is no older checkpoint in its directory"
    return f"the previous one is intact: --resume-from {found[0]}"

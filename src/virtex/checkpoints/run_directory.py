"""The directory of a run: its files, and how a run starts in it or resumes.

`config.yaml` (resolved), `subset.json` (the images, if not all are trained on),
`checkpoint_{iteration}.pth`, `log_rank{rank}.txt`, `scalars.jsonl` and TensorBoard's event files;
with evaluations also `checkpoint_best.pth` and `results.json`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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

    `state` is None for a new run. With `validation_due` the run was stopped before the validation
    after these steps. Checkpoints up to iteration `untouched` may be from a version that kept them
    all. `notes` and `cautions` are messages; the latter are logged as warnings.
    """

    iteration: int
    state: dict[str, Any] | None
    notes: tuple[str, ...]
    validation_due: bool = False
    untouched: int = -1
    cautions: tuple[str, ...] = ()


def holds_run(directory: Path) -> bool:
    """Whether a run has started in this directory."""
    return (directory / CONFIG).exists() or bool(checkpoints(directory))


def check_free(directory: Path) -> None:
    """Raise `UserError` unless a new run can start in `directory`."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--serialization-dir {directory} is a file; give a directory")
    if holds_run(directory):
        run, start = "a run", ""
        if not checkpoints(directory):
            run, start = "a run, which has saved no checkpoint", ", which starts at iteration 1"
        raise UserError(
            f"--serialization-dir {directory} already holds {run}; continue it with --resume-from "
            f"latest{start}, or give another directory"
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
        older = newest_readable(path.parent, before=checkpoint_iteration(path))
        remedy = "its directory has no older checkpoint"
        if older is not None:
            remedy = f"the previous one is intact: --resume-from {older[0]}"
        raise DamagedCheckpoint(f"{error}; {remedy}") from error
    start = _resume_point(path, state)
    if path.parent.resolve() != directory.resolve():
        check_free(directory)
    newer = newest_readable(directory, after=start.iteration)
    if newer is not None:
        raise UserError(
            f"--resume-from {path} is iteration {start.iteration}, but {directory} already holds "
            f"{newer[0].name}; use --resume-from latest, or give another --serialization-dir"
        )
    return start


def _latest(directory: Path) -> ResumePoint:
    found = newest_readable(directory)
    if found is not None:
        return _resume_point(*found)
    damaged = checkpoints(directory)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        raise DamagedCheckpoint(f"no checkpoint in {directory} is intact; damaged: {names}")
    if not holds_run(directory):
        raise UserError(
            f"--resume-from latest: {directory} contains no run; check --serialization-dir, or "
            "omit --resume-from to start a new run"
        )
    return ResumePoint(0, None, (f"no checkpoint in {directory} yet: starting at iteration 1",))


def _resume_point(path: Path, state: dict[str, Any], damaged: Sequence[Path] = ()) -> ResumePoint:
    """The point at which a checkpoint was saved; `damaged` are newer ones that cannot be read."""
    lacking = [key for key in RUN_KEYS if key not in state]
    iteration = state.get("iteration")
    if lacking or type(iteration) is not int:
        raise UserError(
            f"{path} holds no {', '.join(lacking) or 'iteration'}, so a run cannot resume from it; "
            "start a new run from its weights with --init-from"
        )
    notes = [f"{bad} is damaged; the previous one is used" for bad in damaged]
    return ResumePoint(
        iteration,
        state,
        notes=(*notes, f"resuming from {path}, iteration {iteration}"),
        # Earlier versions saved after the validation, and kept all checkpoints.
        validation_due=not state.get("validated", True),
        untouched=state.get("untouched", iteration),
    )

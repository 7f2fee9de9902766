"""`checkpoint_best.pth`: the checkpoint whose evaluation is the best so far.

It is a second name of the checkpoint's file, or a copy where the file system has no hard links, and
is never removed. What the best is follows from `scalars.jsonl`, which holds every evaluation.
"""

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from virtex.checkpoints import file
from virtex.errors import UserError
from virtex.files import whole_file, writing
from virtex.training.scalars import SCALARS, parse_line

BEST_CHECKPOINT = "checkpoint_best.pth"


def evaluated_metric(name: str) -> str:
    """The name of a metric PROTOCOL/METRIC among the scalars."""
    return f"evaluate/{name}"


@dataclass(frozen=True)
class Best:
    """The iteration of the best value of a metric, and the value."""

    iteration: int
    value: float


@dataclass
class BestCheckpoint:
    """Keeps the checkpoint with the best value of `metric`, PROTOCOL/METRIC, in `directory`.

    `best` is the first of equal values; None before any.
    """

    directory: Path
    metric: str
    lower_is_better: bool = False
    best: Best | None = None

    @property
    def path(self) -> Path:
        """The file of the best checkpoint."""
        return self.directory / BEST_CHECKPOINT

    def restore(self) -> str | None:
        """Find the best so far of a run that resumes; returns a warning if its weights are gone."""
        self.best = best_value(
            self.directory / SCALARS, evaluated_metric(self.metric), self.lower_is_better
        )
        if self.best is None:
            return None
        saved = file.checkpoint_path(self.directory, self.best.iteration)
        if self._is(saved) or self._held() == self.best.iteration:
            return None
        if saved.is_file():
            self._link(saved)
            return None
        lost, self.best = self.best, None
        return (
            f"the weights of iteration {lost.iteration}, the best so far by {self.metric}, are not "
            f"in {self.directory}; {BEST_CHECKPOINT} will be the best of the evaluations to come"
        )

    def offer(self, iteration: int, value: float) -> None:
        """Take the value of an evaluation into account, before its checkpoint is saved."""
        better = self.best is None or _is_better(value, self.best.value, self.lower_is_better)
        if better and not math.isnan(value):
            self.best = Best(iteration, value)

    def saved(self, path: Path) -> bool:
        """Keep a checkpoint that was just saved if it is the best; returns whether it is."""
        if self.best is None or file.checkpoint_iteration(path) != self.best.iteration:
            return False
        self._link(path)
        return True

    def _link(self, source: Path) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial-{os.getpid()}")
        with writing(self.path):
            partial.unlink(missing_ok=True)
            try:
                partial.hardlink_to(source)
            except OSError:  # such as a file system without hard links
                with source.open("rb") as original, whole_file(self.path) as copy:
                    shutil.copyfileobj(original, copy)
            else:
                partial.replace(self.path)
                partial.unlink(missing_ok=True)  # it stays if both were one file already

    def _is(self, saved: Path) -> bool:
        """Whether the file is the same as another, instead of a copy."""
        return self.path.exists() and saved.exists() and self.path.samefile(saved)

    def _held(self) -> int | None:
        """The iteration of the weights in the file; None if it cannot be read."""
        try:
            iteration = file.load(self.path).get("iteration")
        except UserError:
            return None
        return iteration if isinstance(iteration, int) else None


def best_value(scalars: Path, name: str, lower_is_better: bool) -> Best | None:
    """The best value of a scalar, the first of equal ones; None if the file has none."""
    best: Best | None = None
    for iteration, value in logged_values(scalars, name).items():
        if best is None or _is_better(value, best.value, lower_is_better):
            best = Best(iteration, value)
    return best


def logged_values(scalars: Path, name: str) -> dict[int, float]:
    """The values of a scalar by iteration, in the order in which they were logged; no NaN."""
    return dict(_logged(scalars, name))


def _logged(scalars: Path, name: str) -> Iterator[tuple[int, float]]:
    if not scalars.exists():
        return
    with scalars.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            values = parse_line(line) if name in line else None
            if values is not None and not math.isnan(values.get(name, math.nan)):
                yield int(values["iteration"]), values[name]


def _is_better(value: float, other: float, lower_is_better: bool) -> bool:
    return value < other if lower_is_better else value > other

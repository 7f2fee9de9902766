"""How long a run will take and how much disk its checkpoints need, once its speed is known."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import Tensor

from virtex.checkpoints.file import Retention, checkpoint_iteration, checkpoints
from virtex.training.loop import Step, TrainState

_STEPS = 20
_SKIPPED = 3
"""The first steps, which load libraries and choose algorithms."""


@dataclass
class Forecast:
    """The forecast of a run that ends with iteration `last` and validates every `interval` ones.

    It is made after the first twenty steps of a process.
    """

    last: int
    interval: int
    _seconds: list[float] = field(default_factory=list)

    def is_due(self, step: Step) -> bool:
        """Count a step; true for the twentieth, unless it is the last one of the run."""
        if len(self._seconds) == _STEPS:
            return False
        self._seconds.append(step.seconds)
        return len(self._seconds) == _STEPS and step.iteration < self.last

    def duration(self, iteration: int) -> str:
        """A line on the time that the iterations after this one take, at the median speed."""
        remaining = self.last - iteration
        seconds = round(statistics.median(self._seconds[_SKIPPED:]) * remaining)
        validations = sum(each > iteration for each in self._validated())
        return (
            f"forecast: the remaining {remaining:,} iterations take about"
            f" {timedelta(seconds=seconds)}, and {validations:,} validations besides"
        )

    def checkpoints_at_end(self, directory: Path, retention: Retention) -> int:
        """The number of checkpoints that the directory will hold at the end of the run."""
        existing = map(checkpoint_iteration, checkpoints(directory))
        saved = {*(each for each in existing if each is not None), *self._validated()}
        return len(retention.select(sorted(saved)))

    def _validated(self) -> set[int]:
        return {*range(self.interval, self.last, self.interval), self.last}


def disk_line(size: int, count: int, free: int) -> tuple[str, bool]:
    """A line on `count` checkpoints of `size` bytes, and whether they fit into the free space."""
    line = (
        f"forecast: at the end there are {count:,} checkpoints of {size / 1e6:,.0f} MB,"
        f" {size * count / 1e9:,.2f} GB in all, and one more while it is written;"
        f" {free / 1e9:,.1f} GB are free"
    )
    return line, size * (count + 1) <= free


def checkpoint_bytes(state: TrainState) -> int:
    """The bytes of all tensors in a checkpoint; those with several names count once."""
    tensors = [*_tensors(state.objective.state_dict()), *_tensors(state.optimizer.state_dict())]
    return sum({(each.data_ptr(), each.nbytes): each.nbytes for each in tensors}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)

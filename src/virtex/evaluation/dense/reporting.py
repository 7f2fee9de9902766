"""What the training and the judgement of a head tell their caller: lines, and progress."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self


class Progress(Protocol):
    """The progress of a phase, in units such as iterations."""

    def advance(self, count: int, detail: str = "") -> None:
        """Count units as done; `detail`, such as a loss, is to be shown beside them."""

    def skip(self, count: int) -> None:
        """Count units that were done earlier."""

    def note(self, text: str) -> None:
        """Report a line, such as an image that cannot be read."""


class Silence:
    """A `Progress` that is not shown."""

    def __init__(self, label: str = "", total: int | None = None, units: str = "") -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, count: int, detail: str = "") -> None:
        pass

    def skip(self, count: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def _say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True)
class Reporting:
    """Where an evaluation reports, by default nowhere. Picklable, as other processes get it.

    `say` gets the lines of the output. `phase` maps a label, the number of units and their name to
    a context with the progress of a phase.
    """

    say: Callable[[str], None] = _say_nothing
    phase: Callable[[str, int | None, str], AbstractContextManager[Progress]] = Silence


SILENT = Reporting()

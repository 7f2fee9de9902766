"""A debugger on one process of a job, while the others wait for it."""

import os
import pdb
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtex.errors import UserError


def this_terminal() -> Path:
    """The terminal from which this process reads; raises `UserError` if there is none."""
    try:
        return Path(os.ttyname(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0))
    except (OSError, ValueError):
        raise UserError(
            "--debug-rank needs a terminal to read from: run the command interactively, without a "
            "pipe or a batch system"
        ) from None


@contextmanager
def debugger(terminal: Path, *, here: bool) -> Iterator[None]:
    """Open pdb on `terminal` at each `breakpoint()` and after an error in this context.

    `here` is true in the process to debug; in the others `breakpoint()` does nothing. Processes
    that an agent started have no standard input of their own, hence `terminal`.
    """
    before = sys.breakpointhook
    try:
        if here:
            yield from _debugging(terminal)
        else:
            sys.breakpointhook = lambda *_, **__: None
            yield
    finally:
        sys.breakpointhook = before


def _debugging(terminal: Path) -> Iterator[None]:
    with terminal.open() as reading, terminal.open("w") as writing:

        def stop(*_: object, **__: object) -> None:
            pdb.Pdb(stdin=reading, stdout=writing, nosigint=True).set_trace(sys._getframe(1))

        sys.breakpointhook = stop
        try:
            yield
        except Exception as error:
            writing.write(f"{type(error).__name__}: {error}\n")
            inspector = pdb.Pdb(stdin=reading, stdout=writing, nosigint=True)
            inspector.reset()
            inspector.interaction(None, error.__traceback__)
            raise

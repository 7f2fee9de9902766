"""A debugger on one process of a job, while the others wait for it."""

import pdb
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from virtex.errors import UserError


def this_terminal() -> Path:
    """The terminal that this process reads from; raises `UserError` if there is none."""
    import os

    try:
        return Path(os.ttyname(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0))
    except (OSError, ValueError):
        raise UserError(
            "--debug-rank needs a terminal to read from: run the command by hand, without a pipe "
            "or a batch system"
        ) from None


@contextmanager
def debugger(terminal: Path, *, here: bool) -> Iterator[None]:
    """Open pdb on `terminal` at each `breakpoint()` and after an error in this context.

    `here` is true in the process to debug; in the others `breakpoint()` does nothing. Processes
    that an agent started have no standard input of their own, hence `terminal`.
    """
    before = sys.breakpointhook
    if not here:
        sys.breakpointhook = lambda *_, **__: None
        try:
            yield
        finally:
            sys.breakpointhook = before
        return
    with terminal.open() as reading, terminal.open("w") as writing:

        def stop(*_: object, **__: object) -> None:
            frame: FrameType | None = sys._getframe(1)
            pdb.Pdb(stdin=reading, stdout=writing, nosigint=True).set_trace(frame)

        sys.breakpointhook = stop
        try:
            yield
        except Exception as error:
            writing.write(f"{type(error).__name__}: {error}\n")
            inspector = pdb.Pdb(stdin=reading, stdout=writing, nosigint=True)
            inspector.reset()
            inspector.interaction(None, error.__traceback__)
            raise
        finally:
            sys.breakpointhook = before

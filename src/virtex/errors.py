"""Exceptions whose message is for the user, lists in such messages, and delayed interrupts."""

import os
import signal
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager


class UserError(Exception):
    """A mistake that the user can correct.

    The message tells what is wrong and where, what was expected and what to do. The command line
    prints it without a traceback and exits with `exit_status`.
    """

    exit_status = 2


class RunError(UserError):
    """A failure of a run whose input was accepted."""

    exit_status = 1


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def first_few(items: Sequence[object], most: int = 5) -> str:
    """The first items for a message, with an ellipsis if there are more: `7, 9, 31, 40, 41, …`."""
    return ", ".join(map(str, items[:most])) + (", …" if len(items) > most else "")


def printable(text: object) -> str:
    """The text of a path or another value, with bytes that are not UTF-8 escaped."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def report_lines(found: Mapping[str, Collection[object]], kind: str = "") -> tuple[str, ...]:
    """A line for each finding that has items: `3 captions are blank (image ids 7, 9, 31)`.

    `kind` is the name of the items, if they do not tell by themselves.
    """
    name = f"{kind} " if kind else ""
    return tuple(
        f"{len(items)} {what} ({name}{first_few(list(items))})"
        for what, items in found.items()
        if len(items)
    )


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Raise a KeyboardInterrupt at the end of this context that would be raised within it.

    For work with locks or threads of a library that an exception at any instruction would leave
    waiting for each other. Only the main thread gets interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number in held[:1]:
            os.kill(os.getpid(), number)

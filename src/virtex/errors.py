"""Exceptions whose message is for the user, and lists in such messages."""

from collections.abc import Collection, Mapping, Sequence


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

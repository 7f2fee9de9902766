"""Requests to stop: SIGTERM, and SIGUSR1, which SLURM can send shortly before the time limit."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from virtex.errors import UserError

STOPPED = 75
"""The exit status of a run that was asked to stop and saved its state, so that it can be resumed.

EX_TEMPFAIL of sysexits.h.
"""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(UserError):
    """A request to stop was received; nothing that was computed is lost."""

    exit_status = STOPPED


class StopRequest:
    """Whether this process was asked to stop, and by which signal.

    `parent` is the process that started this one, even if it has ended since.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        parent = multiprocessing.parent_process()
        # Children of multiprocessing know their parent; others can only ask while it lives.
        found = os.getppid() if parent is None else parent.pid
        assert found is not None
        self.parent = found

    def __bool__(self) -> bool:
        return self.signal is not None

    def check(self, message: str) -> None:
        """Raise `Stopped` with this message if a signal was received."""
        if self:
            raise Stopped(message)

    def note(self, number: int, _: object = None) -> None:
        """Handle a signal: the work continues to a point at which it can stop."""
        self.signal = signal.Signals(number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record signals in a `StopRequest` instead of ending the process; nested contexts share it.

    Only for a process's main thread.
    """
    outer = getattr(signal.getsignal(SIGNALS[0]), "__self__", None)
    if isinstance(outer, StopRequest):
        yield outer
        return
    request = StopRequest()
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

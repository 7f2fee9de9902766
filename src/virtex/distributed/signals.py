"""Requests to stop: SIGTERM, and SIGUSR1, which SLURM can send shortly before the time limit."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from virtex.errors import UserError

STOPPED = 75
"""The exit status (EX_TEMPFAIL) of a run that stopped on request and can be resumed."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(UserError):
    """A request to stop was received; no result is lost."""

    exit_status = STOPPED


class StopRequest:
    """Whether this process was asked to stop, by which signal, and the id of its parent process."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.parent = os.getppid()

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

    In other threads than a process's main one, which cannot handle signals, none is recorded.
    """
    outer = getattr(signal.getsignal(SIGNALS[0]), "__self__", None)
    if isinstance(outer, StopRequest):
        yield outer
        return
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    with signal_handler(request.note):
        yield request


@contextmanager
def signal_handler(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handle` for `SIGNALS` in this context; the earlier handlers are restored after it."""
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The last moments of a process: what could hold them up does not."""

import atexit
import faulthandler
import multiprocessing
import os
import signal
from typing import NoReturn

from virtex.distributed.environment import Place


def end_in(seconds: float, place: Place) -> None:
    """Let the exit of a process with others take no longer than so many seconds, once it begins.

    Python waits for its children, and torch for the other processes. What is left after the
    time is printed. A process without others may be somebody's interpreter: it is left alone.
    """
    if place.size > 1 or place.agent:
        atexit.register(faulthandler.dump_traceback_later, seconds, exit=True)
    atexit.register(_kill_at_exit)


def exit_now(status: int) -> NoReturn:
    """End this process at once, from any of its threads, and its loader workers."""
    try:
        kill_children()
    finally:
        os._exit(status)


def _kill_at_exit() -> None:
    # torch would raise an error for the end of a loader worker.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kill_children()


def kill_children() -> None:
    """Kill what multiprocessing would only send SIGTERM, and then wait for."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()

"""The exit of a process: nothing that could delay it does so for long."""

import atexit
import faulthandler
import multiprocessing
import os
import signal
from typing import NoReturn

from virtex.distributed.environment import ProcessInfo

RESUME = "The saved checkpoints are intact: continue with --resume-from latest"
"""What to do after a run of pretraining has failed."""


def limit_exit_time(seconds: float, process: ProcessInfo) -> None:
    """Limit how long the exit may take in a job of several processes or with an agent.

    Python waits for its children, and torch for the other processes. After `seconds` the stacks
    are printed and the process ends. A process alone has no limit, since it may be an interactive
    interpreter.
    """
    if process.size > 1 or process.agent:
        atexit.register(faulthandler.dump_traceback_later, seconds, exit=True)
    atexit.register(_kill_at_exit)


def exit_now(status: int) -> NoReturn:
    """End this process and its loader workers at once; may be called from any thread."""
    try:
        kill_children()
    finally:
        os._exit(status)


def _kill_at_exit() -> None:
    # Otherwise torch would raise an error when a loader worker ends.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kill_children()


def kill_children() -> None:
    """Kill the daemon children, which multiprocessing would only send SIGTERM and then wait for."""
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()

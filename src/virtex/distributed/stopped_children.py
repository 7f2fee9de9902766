"""Detection of processes that a signal has stopped, by their agent: they cannot notice it."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def killing_stopped_children(limit_seconds: float) -> Iterator[None]:
    """Kill children that a signal has stopped for longer than the limit, with a message.

    Does nothing on a system without `/proc`. If a process on another machine has stopped, the
    watchdogs end the processes here, and the agent there kills the stopped one.
    """
    ended = threading.Event()
    # Children of the main thread, which starts the processes.
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")

    def watch() -> None:
        since: dict[int, float] = {}
        while not ended.wait(min(5.0, limit_seconds / 8)):
            now = time.monotonic()
            since = {pid: since.get(pid, now) for pid in _stopped(children)}
            for pid, begin in since.items():
                if now - begin > limit_seconds:
                    _end(pid, now - begin)

    thread = threading.Thread(target=watch, name="stopped children", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _end(pid: int, seconds: float) -> None:
    print(
        f"virtex: error: process {pid} has been stopped by a signal for {seconds:.0f} s "
        "(limit: --watchdog-timeout) and is killed",
        file=sys.stderr,
        flush=True,
    )
    with suppress(ProcessLookupError):  # it may have ended in the meantime
        os.kill(pid, signal.SIGKILL)


def _stopped(children: Path) -> list[int]:
    """The children in state T; a process under a debugger is in state t."""
    stopped = []
    with suppress(OSError):  # no `/proc`
        for pid in children.read_text(encoding="ascii").split():
            with suppress(OSError):  # it may have ended in the meantime
                text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
                if text.rpartition(")")[2].split()[0] == "T":
                    stopped.append(int(pid))
    return stopped

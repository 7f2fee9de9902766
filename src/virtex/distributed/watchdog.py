"""The watchdog: ends a process that is stuck and reports the phase of every process.

Each process writes its phase, and for how long it has lasted, to the store every few seconds. A
process whose phase lasts longer than the limit prints the phases of all and ends; its agent ends
the rest. A process that fails writes its failure, and the others end, even without an agent.
"""

import faulthandler
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from torch._C._distributed_c10d import Store

from virtex.distributed.ending import exit_now
from virtex.distributed.failures import Failure, is_connection_error, local_failure, report_to_agent

STUCK = 1
"""The exit status of a process that was stuck."""

_STORE_SECONDS = 3.0
"""How many seconds a stuck process waits for an answer from the store."""
_POLL_SECONDS = 0.5
"""The interval at which a process checks whether another has failed."""
_UNWIND_SECONDS = 8.0
"""How long a process may take to end by itself after the failure of another."""
_FAILED = "failed"
_NO_STORE = "the store, which rank 0 or its agent serves, does not answer"


@dataclass(frozen=True)
class Beat:
    """The phase of a process, its seconds so far, and the time by its machine's clock."""

    phase: str
    seconds: float
    sent: float
    machine: str

    def line(self, rank: int, now: float, interval: float) -> str:
        """A line for the user, which notes a process that has stopped sending."""
        silent = now - self.sent
        text = f"rank {rank} on {self.machine}: {self.phase}, for {self.seconds:.0f} s"
        return text if silent < 4 * interval else f"{text}; nothing heard for {silent:.0f} s"


class Watchdog:
    """Publishes the phase of this process, and ends the process when it is stuck.

    `store` is a connection used for nothing else; None for a job of one process. `limit_seconds` is
    how long one phase may last; infinity sets no limit. `log` is the file to which a stuck process
    appends its report. `orphaned` is called when `parent` is no longer this process's parent.
    """

    def __init__(self, rank: int, size: int, store: Store | None, limit_seconds: float) -> None:
        self.rank = rank
        self.size = size
        self.limit_seconds = limit_seconds
        self.log: Path | None = None
        self._store = store
        self.interval = min(5.0, limit_seconds / 8)
        self._phase = ("starting", time.monotonic())
        self._ended = threading.Event()
        self.parent = os.getppid()
        self.orphaned: Callable[[], None] = lambda: None
        self._failed = threading.Event()
        self.failure: Failure | None = None
        # Two threads: a stuck process must end even if the store does not answer.
        self._threads = [threading.Thread(target=self._watch, name="watchdog", daemon=True)]
        if store is not None:
            self._threads.append(threading.Thread(target=self._exchange, name="store", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def phase(self) -> str:
        """The phase that was reported last."""
        return self._phase[0]

    def report(self, phase: str) -> None:
        self._phase = (phase, time.monotonic())

    def announce(self, error: BaseException) -> None:
        """Report to the other processes and the agent that this one fails; the first report counts.

        A lost connection to other processes is not a failure of this process.
        """
        if self.size > 1 and is_connection_error(error):
            return
        failure = local_failure(self.rank, self.phase, error)
        report_to_agent(str(failure))
        store = self._store
        if store is not None:
            text = json.dumps(asdict(failure))
            _in_time(lambda: store.compare_set(_FAILED, "", text))

    def wait_for_failure(self, seconds: float) -> Failure | None:
        """The failure of another process, if one is reported within `seconds`."""
        self._failed.wait(seconds)
        return self.failure

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_STORE_SECONDS)

    def _watch(self) -> None:
        while not self._ended.wait(self.interval):
            phase, since = self._phase
            seconds = time.monotonic() - since
            if os.getppid() != self.parent:
                self.parent = os.getppid()
                self.orphaned()
            if seconds > self.limit_seconds:
                self._give_up(phase, seconds)

    def _exchange(self) -> None:
        sent = -math.inf
        while self._store is not None and not self._ended.wait(min(_POLL_SECONDS, self.interval)):
            try:
                if time.monotonic() - sent >= self.interval:
                    sent = time.monotonic()
                    self._send(self._store)
                self._check_for_failure(self._store)
            except RuntimeError:
                self._store = None  # it ended with rank 0 or its agent
            if self.failure is not None:
                self._end_after(self.failure)
                return

    def _send(self, store: Store) -> None:
        phase, since = self._phase
        seconds = time.monotonic() - since
        beat = Beat(phase, seconds, time.time(), socket.gethostname())
        store.set(_key(self.rank), json.dumps(asdict(beat)))

    def _check_for_failure(self, store: Store) -> None:
        if store.check([_FAILED]):
            failure = Failure(**json.loads(store.get(_FAILED)))
            if failure.rank != self.rank:
                self.failure = failure
                self._failed.set()

    def _end_after(self, failure: Failure) -> None:
        """End this process after the failure of another, unless it soon ends by itself.

        A process that waits for the other on a GPU, for instance, does not end by itself.
        """
        if self._ended.wait(_UNWIND_SECONDS):
            return
        text = f"virtex: error: {failure}\nRank {self.rank} ends too ({self.phase})."
        report_to_agent(text)
        try:
            print(text, file=sys.stderr, flush=True)
        finally:
            exit_now(1)

    def _give_up(self, phase: str, seconds: float) -> None:
        # The report may get stuck too, if a store or a disk does not answer.
        deadline = threading.Timer(2 * _STORE_SECONDS, os._exit, (STUCK,))
        deadline.daemon = True
        deadline.start()
        text = (
            f"virtex: error: rank {self.rank} has been stuck for {seconds:.0f} s (limit "
            f"{self.limit_seconds:.0f} s, --watchdog-timeout): {phase}\n"
        )
        text += "".join(f"  {line}\n" for line in self._phases())
        try:
            print(text, end="", file=sys.stderr, flush=True)
            if self.log is not None:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    faulthandler.dump_traceback(file)
        finally:
            # The main thread is in a call that does not return.
            exit_now(STUCK)

    def _phases(self) -> list[str]:
        """A line for the phase of each process of several, as far as the store answers soon."""
        lines: list[str] = []

        def read(store: Store) -> None:
            with suppress(RuntimeError):  # the store is gone
                for rank in range(self.size):
                    if store.check([_key(rank)]):
                        beat = Beat(**json.loads(store.get(_key(rank))))
                        lines.append(beat.line(rank, time.time(), self.interval))
                    else:
                        lines.append(f"rank {rank}: has not reported yet")

        store = self._store
        if store is not None:
            _in_time(lambda: read(store))
        return lines if self.size in (1, len(lines)) else [*lines, _NO_STORE]


def ask_to_stop() -> None:
    """Send this process the signal that asks it to save and stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def _in_time(request: Callable[[], object]) -> None:
    """Send a request to the store and wait for the answer, but not for long."""
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(_STORE_SECONDS)


def _key(rank: int) -> str:
    return f"beat/{rank}"

"""Signs of life: where each process is, so that a job that is stuck ends and says who was where.

Each process tells the store, every few seconds, what it does and for how long. One that does the
same for longer than the limit prints what all of them do and ends itself; its agent ends the rest.
One that fails tells so as well, and the others end: without an agent nobody else would see to that.
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
from dataclasses import asdict, dataclass
from pathlib import Path

from torch._C._distributed_c10d import Store

from virtex.distributed.ending import exit_now
from virtex.distributed.failures import Failure, failure_here, is_of_the_connection, tell_agent

STUCK = 1
"""The exit status of a process that was stuck."""

_PATIENCE = 3.0
"""Seconds that a process which is stuck waits for what others have told."""
_LOOK_SECONDS = 0.5
"""How often a process looks whether another has failed."""
_UNWIND_SECONDS = 8.0
"""How long a process may go on after the failure of another, to end by itself."""
_FAILED = "failed"
_NO_STORE = "the store, which rank 0 or its agent serves, does not answer"


@dataclass(frozen=True)
class Beat:
    """What a process does, since how many seconds, told when by its machine's clock."""

    where: str
    seconds: float
    told: float
    machine: str

    def line(self, rank: int, now: float, interval: float) -> str:
        """For a person; a process that tells nothing any more is stopped or gone."""
        silent = now - self.told
        text = f"rank {rank} on {self.machine}: {self.where}, for {self.seconds:.0f} s"
        return text if silent < 4 * interval else f"{text}; no sign of life for {silent:.0f} s"


class Heartbeat:
    """Tells where this process is, and ends it when it is stuck.

    `store` is a connection of its own; without one there is one process. `limit_seconds` is how
    long it may be in one place; infinity watches nothing. `log` gets the report. `orphaned` is
    called when `parent` is this process's parent no longer.
    """

    def __init__(self, rank: int, size: int, store: Store | None, limit_seconds: float) -> None:
        self.rank = rank
        self.size = size
        self.limit_seconds = limit_seconds
        self.log: Path | None = None
        self._store = store
        self.interval = min(5.0, limit_seconds / 8)
        self._place = ("starting", time.monotonic())
        self._ended = threading.Event()
        self.parent = os.getppid()
        self.orphaned: Callable[[], None] = lambda: None
        self._failed = threading.Event()
        self.failure: Failure | None = None
        # Two threads, as the store may not answer, and whoever is stuck must end all the same.
        self._threads = [threading.Thread(target=self._watch, name="heartbeat", daemon=True)]
        if store is not None:
            self._threads.append(threading.Thread(target=self._talk, name="store", daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def where(self) -> str:
        """What this process does."""
        return self._place[0]

    def at(self, where: str) -> None:
        """Say what this process does from now on."""
        self._place = (where, time.monotonic())

    def announce(self, error: BaseException) -> None:
        """Tell the other processes, and the agent, that this one fails; the first failure counts.

        An error that only says that others are lost is none of this process.
        """
        if self.size > 1 and is_of_the_connection(error):
            return
        failure = failure_here(self.rank, self.where, error)
        tell_agent(str(failure))
        store = self._store
        if store is not None:
            text = json.dumps(asdict(failure))
            _in_time(lambda: store.compare_set(_FAILED, "", text))

    def others_failure(self, seconds: float) -> Failure | None:
        """The failure of another process, if one is told within `seconds`."""
        self._failed.wait(seconds)
        return self.failure

    def stop(self) -> None:
        """Watch no longer."""
        self._ended.set()
        for thread in self._threads:
            thread.join(_PATIENCE)

    def _watch(self) -> None:
        while not self._ended.wait(self.interval):
            where, since = self._place
            seconds = time.monotonic() - since
            if os.getppid() != self.parent:
                self.parent = os.getppid()
                self.orphaned()
            if seconds > self.limit_seconds:
                self._give_up(where, seconds)

    def _talk(self) -> None:
        told = -math.inf
        while self._store is not None and not self._ended.wait(min(_LOOK_SECONDS, self.interval)):
            try:
                if time.monotonic() - told >= self.interval:
                    told = time.monotonic()
                    self._tell(self._store)
                self._look(self._store)
            except RuntimeError:
                # Rank 0 or its agent is gone, and the store with it: nobody can be told.
                self._store = None
            if self.failure is not None:
                self._follow(self.failure)
                return

    def _tell(self, store: Store) -> None:
        where, since = self._place
        seconds = time.monotonic() - since
        beat = Beat(where, seconds, time.time(), socket.gethostname())
        store.set(_key(self.rank), json.dumps(asdict(beat)))

    def _look(self, store: Store) -> None:
        if store.check([_FAILED]):
            failure = Failure(**json.loads(store.get(_FAILED)))
            if failure.rank != self.rank:
                self.failure = failure
                self._failed.set()

    def _follow(self, failure: Failure) -> None:
        """End this process after the failure of another, unless it soon ends by itself.

        It does not where it waits for the other by way of a GPU, for instance.
        """
        if self._ended.wait(_UNWIND_SECONDS):
            return
        text = f"virtex: error: {failure}\nSo rank {self.rank} ends too ({self.where})."
        tell_agent(text)
        try:
            print(text, file=sys.stderr, flush=True)
        finally:
            exit_now(1)

    def _give_up(self, where: str, seconds: float) -> None:
        # What is told here may get stuck too: in a store or on a disk that does not answer.
        patience = threading.Timer(2 * _PATIENCE, os._exit, (STUCK,))
        patience.daemon = True
        patience.start()
        text = (
            f"virtex: error: rank {self.rank} has been stuck for {seconds:.0f} s (limit "
            f"{self.limit_seconds:.0f} s, --watchdog-timeout): {where}\n"
        )
        text += "".join(f"  {line}\n" for line in self._others_in_time())
        try:
            print(text, end="", file=sys.stderr, flush=True)
            if self.log is not None:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    faulthandler.dump_traceback(file)
        finally:
            # The main thread is in a call that does not come back.
            exit_now(STUCK)

    def _others_in_time(self) -> list[str]:
        lines: list[str] = []
        if self.size == 1:
            return lines
        _in_time(lambda: lines.extend(self._others()))
        return lines or [_NO_STORE]

    def _others(self) -> list[str]:
        if self._store is None:
            return [_NO_STORE]
        lines: list[str] = []
        for rank in range(self.size):
            try:
                known = self._store.check([_key(rank)])
                beat = Beat(**json.loads(self._store.get(_key(rank)))) if known else None
            except RuntimeError:
                return [*lines, _NO_STORE]
            if beat is None:
                lines.append(f"rank {rank}: has told nothing yet")
            else:
                lines.append(beat.line(rank, time.time(), self.interval))
        return lines


def ask_to_stop() -> None:
    """Send this process the signal that asks it to save and end."""
    os.kill(os.getpid(), signal.SIGTERM)


def _in_time(ask: Callable[[], object]) -> None:
    """Call what asks the store, and return when it has answered, or soon if it does not."""
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)


def _key(rank: int) -> str:
    return f"beat/{rank}"

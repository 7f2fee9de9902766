"""The processes that our agent starts on its machine: how they are called and what they return.

Convention: a directory of the agent holds the call and, for each process, a file with its id,
written as soon as the process handles signals, and one with the status that it returned. The
processes are plain programs, as under torchrun: those of multiprocessing would share semaphores
with the agent, which would wait forever for a process that was killed during its exit.
"""

import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from virtex.distributed.ending import kill_children
from virtex.distributed.signals import stop_requests
from virtex.errors import UserError

A = TypeVar("A")

_PROGRAM = """
import os, signal, sys

# Until the process is ready, an interrupt ends it without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path[:] = {path!r}
from virtex.distributed.rank_process import main

main({directory!r}, {agent})
"""


class RankProcesses:
    """The agent's side; `directory` is empty and used for nothing else."""

    def __init__(self, directory: Path, function: Callable[[A], int], argument: A) -> None:
        self._directory = directory
        (directory / "call").write_bytes(pickle.dumps((function, argument)))
        self.program = directory / "process.py"
        text = _PROGRAM.format(path=sys.path, directory=str(directory), agent=os.getpid())
        self.program.write_text(text, encoding="utf-8")

    @property
    def started(self) -> bool:
        return bool(self._numbers("process"))

    @property
    def statuses(self) -> list[int]:
        """The statuses of the processes that have returned."""
        return self._numbers("status")

    def send(self, number: int) -> None:
        """Send a signal to every process; those that are not ready yet receive it later."""
        _write(self._directory / "signal", number)
        for pid in self._numbers("process"):
            with suppress(ProcessLookupError):  # it may have ended meanwhile
                os.kill(pid, number)

    def _numbers(self, name: str) -> list[int]:
        return [int(path.read_text()) for path in sorted(self._directory.glob(f"{name}_*"))]


def main(name: str, agent: int) -> None:
    """The process's side: call the function; exits with 0 if it returns."""
    directory, rank = Path(name), os.environ["LOCAL_RANK"]
    (directory / f"status_{rank}").unlink(missing_ok=True)  # of an earlier attempt
    with stop_requests() as request:
        request.parent = agent
        _write(directory / f"process_{rank}", os.getpid())
        if (directory / "signal").exists():  # sent before this process was ready
            request.note(int((directory / "signal").read_text()))
        function, argument = pickle.loads((directory / "call").read_bytes())
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _write(directory / f"status_{rank}", _reporting(function, argument))


def _reporting(function: Callable[[A], int], argument: A) -> int:
    """Call `function`; a `UserError` becomes a message and ends the process.

    The agent's own report is silenced: it would show torch's traceback for a user's mistake.
    """
    try:
        return function(argument)
    except UserError as error:
        print(f"virtex: error: {error}", file=sys.stderr)
        status = error.exit_status
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT  # the agent reports it
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: other threads and the group's destruction may wait for the others.
    kill_children()
    os._exit(status)


def _write(path: Path, number: int) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(str(number), encoding="ascii")
    partial.replace(path)

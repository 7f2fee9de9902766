"""Starting a job's processes on this machine, under torchrun's agent inside this process.

When a process dies, the agent ends the others, or starts all of them anew.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from virtex.distributed.environment import find_place, wait_for
from virtex.distributed.rank_process import RankProcesses
from virtex.distributed.signals import SIGNALS, STOPPED, Stopped, StopRequest, stop_requests
from virtex.distributed.stopped_children import stopped_children_ended
from virtex.errors import RunError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig

A = TypeVar("A")


@dataclass(frozen=True)
class Machines:
    """`count` machines with `processes` each; this one is number `rank`.

    `url` is `tcp://host:port` of the first. All processes are started anew when one dies, at most
    `max_restarts` times. Machines wait `meeting` seconds for each other. A process that is stopped
    for `stuck` seconds is killed.
    """

    processes: int = 1
    count: int = 1
    rank: int = 0
    url: str = "tcp://127.0.0.1:23456"
    max_restarts: int = 0
    meeting: float = 300.0
    stuck: float = 900.0

    @property
    def endpoint(self) -> str:
        """`host:port` of the first machine."""
        return self.url.removeprefix("tcp://")


def launch(function: Callable[[A], int], argument: A, machines: Machines) -> int:
    """Call `function` in each of this machine's processes; its largest return value.

    Where torchrun or srun has started this process, and for a single one, it is called here. With
    several machines each must run the same command with its own `machines.rank`. SIGTERM and
    SIGUSR1 go to the processes, which say what becomes of them. Raises `RunError` for a process
    that was killed.
    """
    alone = machines.processes * machines.count == 1 and machines.max_restarts == 0
    if alone or "WORLD_SIZE" in os.environ or find_place().size > 1:
        return function(argument)
    with stop_requests() as request:
        if machines.rank > 0:
            _wait_for_the_first(machines, request)
        if request:
            raise Stopped("stopped by a signal before any process was started")
        return _under_agent(function, argument, machines, request)


def _wait_for_the_first(machines: Machines, request: StopRequest) -> None:
    host, port = machines.endpoint.rsplit(":", 1)
    if not wait_for(host, int(port), machines.meeting, lambda: bool(request)):
        raise RunError(
            f"machine {machines.rank} could not reach the first at {machines.url} within "
            f"{machines.meeting:.0f} s. Check that the command runs there with --machine-rank 0, "
            "and that no firewall lies between"
        )


def _under_agent(
    function: Callable[[A], int], argument: A, machines: Machines, request: StopRequest
) -> int:
    import torch.distributed as dist
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # Each of torch's modules has given its logger a level of its own.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="virtex-agent-")))
        ranks = RankProcesses(directory, function, argument)
        stack.enter_context(_forwarded_signals(request, ranks))
        stack.enter_context(stopped_children_ended(machines.stuck))
        try:
            # The words are for whoever lists the processes.
            program = (str(ranks.program), *sys.argv[1:])
            elastic_launch(_config(machines, directory), sys.executable)(*program)
        except ChildFailedError as error:
            return _failed(error, request)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            return 128 + int(error.sigval)
        except dist.DistError as error:
            raise RunError(_unmet(machines, ranks, error)) from error
        return max(ranks.statuses)


def _config(machines: Machines, directory: Path) -> "LaunchConfig":
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    handled: dict[str, Any] = {}
    if "signals_to_handle" in LaunchConfig.__dataclass_fields__:
        numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
        # What nohup, or a shell for its background, has let this process ignore stays ignored.
        names = [one.name for one in numbers if signal.getsignal(one) != signal.SIG_IGN]
        handled["signals_to_handle"] = ",".join(names)
    return LaunchConfig(
        min_nodes=machines.count,
        max_nodes=machines.count,
        nproc_per_node=machines.processes,
        # The machines find each other by this name; torch would draw another on each of them.
        run_id="virtex",
        rdzv_backend="static",
        rdzv_endpoint=machines.endpoint,
        rdzv_configs={"rank": machines.rank, "timeout": int(machines.meeting)},
        max_restarts=machines.max_restarts,
        monitor_interval=0.5,
        logs_specs=DefaultLogsSpecs(log_dir=str(directory / "logs")),
        **handled,
    )


def _failed(error: "ChildFailedError", request: StopRequest) -> int:
    """The status of the process that failed first; raises `RunError` where it was killed."""
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return int(failure.exitcode)
    if request:  # the signal came before the processes could take note of it
        return STOPPED
    name = signal.Signals(-failure.exitcode).name
    raise RunError(
        f"rank {rank} (process {failure.pid}) was ended by {name}, and so were the others"
        + (": mostly for lack of memory" if name == "SIGKILL" else "")
        + ". What was saved is whole: go on with --resume-from latest, or let --max-restarts "
        "do so"
    ) from error


def _unmet(machines: Machines, ranks: RankProcesses, error: Exception) -> str:
    """What to say where the machines cannot meet, or can do so no longer."""
    said = str(error).splitlines()[0][:200]
    if ranks.begun and machines.rank > 0:
        return (
            f"machine {machines.rank} of {machines.count} lost the first machine after the start: "
            f"the command there has ended, or {machines.url} cannot be reached any more ({said}). "
            "Its own message says why it ended. What was saved is whole: start the command on all "
            "machines again, with --resume-from latest"
        )
    return (
        f"machine {machines.rank} of {machines.count} could not meet the others at "
        f"{machines.url}: {said}. The first machine must listen there, on a port that is free and "
        "open to the others: see --dist-url"
    )


@contextmanager
def _forwarded_signals(request: StopRequest, ranks: RankProcesses) -> Iterator[None]:
    def forward(number: int, _: object) -> None:
        request.note(number)
        ranks.send(number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    if request.signal is not None:  # it came before
        ranks.send(request.signal)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

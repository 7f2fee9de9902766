"""Start a job's processes on this machine, with torchrun's agent inside this process.

When a process dies, the agent ends the others, or restarts all of them.
"""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from virtex.distributed.ending import RESUME
from virtex.distributed.environment import read_environment, wait_for
from virtex.distributed.rank_process import RankProcesses
from virtex.distributed.signals import (
    STOPPED,
    Stopped,
    StopRequest,
    signal_handler,
    stop_requests,
)
from virtex.distributed.stopped_children import killing_stopped_children
from virtex.errors import RunError, first_line

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig as AgentConfig

A = TypeVar("A")
_AGENT_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""Signals that torch's agent handles; the others are ours."""


@dataclass(frozen=True)
class LaunchConfig:
    """`count` machines with `processes` each; this one is number `rank`.

    `url` is `tcp://host:port` of the first machine. When a process dies, all are restarted, at most
    `max_restarts` times. Machines wait `rendezvous_timeout` seconds for each other. A process that
    a signal has stopped for `watchdog_timeout` seconds is killed. `remedy` ends the message about a
    process that was killed.
    """

    processes: int = 1
    count: int = 1
    rank: int = 0
    url: str = "tcp://127.0.0.1:23456"
    max_restarts: int = 0
    rendezvous_timeout: float = 300.0
    watchdog_timeout: float = 900.0
    remedy: str = f"{RESUME}, or let --max-restarts do so"

    @property
    def endpoint(self) -> str:
        """`host:port` of the first machine."""
        return self.url.removeprefix("tcp://")


def on_this_machine(processes: int, remedy: str) -> LaunchConfig:
    """The configuration of processes on this machine alone, which meet on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return LaunchConfig(processes, url=f"tcp://127.0.0.1:{port}", remedy=remedy)


def launch(function: Callable[[A], int], argument: A, machines: LaunchConfig) -> int:
    """Call `function` in each of this machine's processes; returns the largest of their results.

    A job of one process, and a process that torchrun or srun has started, calls it directly. With
    several machines, each must run the same command with its own `machines.rank`. SIGTERM and
    SIGUSR1 are forwarded to the processes. Raises `RunError` if a process was killed.
    """
    alone = machines.processes * machines.count == 1 and machines.max_restarts == 0
    if alone or "WORLD_SIZE" in os.environ or read_environment().size > 1:
        return function(argument)
    with stop_requests() as request:
        if machines.rank > 0:
            _wait_for_first_machine(machines, request)
        if request:
            raise Stopped("stopped by a signal before any process was started")
        return _under_agent(function, argument, machines, request)


def _wait_for_first_machine(machines: LaunchConfig, request: StopRequest) -> None:
    host, port = machines.endpoint.rsplit(":", 1)
    if not wait_for(host, int(port), machines.rendezvous_timeout, lambda: bool(request)):
        raise RunError(
            f"machine {machines.rank} could not reach the first machine at {machines.url} within "
            f"{machines.rendezvous_timeout:.0f} s. Check that the command runs there with "
            "--machine-rank 0, and that no firewall blocks the port"
        )


def _under_agent(
    function: Callable[[A], int], argument: A, machines: LaunchConfig, request: StopRequest
) -> int:
    import torch.distributed as dist
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    # Each of torch's modules sets the level of its own logger.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        for number in _AGENT_SIGNALS:  # the agent leaves its handlers behind
            stack.callback(signal.signal, number, signal.getsignal(number))
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="virtex-agent-")))
        ranks = RankProcesses(directory, function, argument)

        def forward(number: int, _: object) -> None:
            request.note(number)
            ranks.send(number)

        stack.enter_context(signal_handler(forward))
        if request.signal is not None:  # received before the handler was installed
            ranks.send(request.signal)
        stack.enter_context(killing_stopped_children(machines.watchdog_timeout))
        try:
            # The arguments are only for those who list the processes.
            program = (str(ranks.program), *sys.argv[1:])
            elastic_launch(_agent_config(machines, directory), sys.executable)(*program)
        except ChildFailedError as error:
            return _failed(error, request, machines.remedy)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from error
            return 128 + int(error.sigval)
        except dist.DistError as error:
            raise RunError(_rendezvous_error(machines, ranks, error)) from error
        return max(ranks.statuses)


def _agent_config(machines: LaunchConfig, directory: Path) -> "AgentConfig":
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig as AgentConfig

    # Signals that nohup or a background shell made this process ignore stay ignored.
    names = [one.name for one in _AGENT_SIGNALS if signal.getsignal(one) != signal.SIG_IGN]
    return AgentConfig(
        min_nodes=machines.count,
        max_nodes=machines.count,
        nproc_per_node=machines.processes,
        # The machines find each other by this name; torch would draw a different one on each.
        run_id="virtex",
        rdzv_backend="static",
        rdzv_endpoint=machines.endpoint,
        rdzv_configs={"rank": machines.rank, "timeout": int(machines.rendezvous_timeout)},
        max_restarts=machines.max_restarts,
        monitor_interval=0.5,
        logs_specs=DefaultLogsSpecs(log_dir=str(directory / "logs")),
        signals_to_handle=",".join(names),
    )


def _failed(error: "ChildFailedError", request: StopRequest, remedy: str) -> int:
    """The status of the process that failed first; raises `RunError` if it was killed."""
    rank, failure = error.get_first_failure()
    if failure.exitcode >= 0:
        return int(failure.exitcode)
    if request:  # the signal arrived before the processes could handle it
        return STOPPED
    name = signal.Signals(-failure.exitcode).name
    raise RunError(
        f"rank {rank} (process {failure.pid}) was killed by {name}, and the others were ended"
        + (": the usual reason is too little memory" if name == "SIGKILL" else "")
        + f". {remedy}"
    ) from error


def _rendezvous_error(machines: LaunchConfig, ranks: RankProcesses, error: Exception) -> str:
    """The message for machines that cannot connect, or have lost their connection."""
    reason = first_line(error)[:200]
    if ranks.started and machines.rank > 0:
        return (
            f"machine {machines.rank} of {machines.count} lost the first machine after the start: "
            f"the command there has ended, or {machines.url} is no longer reachable ({reason}). "
            "Its own message says why it ended. The saved checkpoints are intact: start the "
            "command again on all machines, with --resume-from latest"
        )
    return (
        f"machine {machines.rank} of {machines.count} could not join the others at "
        f"{machines.url}: {reason}. The first machine must listen there, on a port that is free "
        "and open to the others: see --dist-url"
    )

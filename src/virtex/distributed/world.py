"""The world of a job: this process's rank and device, and collectives over all processes."""

import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from virtex.distributed.ending import RESUME, limit_exit_time
from virtex.distributed.environment import ProcessInfo, wait_for
from virtex.distributed.failures import is_connection_error, local_failure, report_to_agent
from virtex.distributed.signals import Stopped
from virtex.distributed.watchdog import Watchdog, ask_to_stop
from virtex.errors import RunError, UserError, first_few, first_line

A = TypeVar("A")

_AGENT_SECONDS = 3.0
"""The time that an agent takes to notice that a process has ended."""
_READING_SECONDS = 1.5
"""The time that the other processes take to read that one has failed."""
_EXIT_SECONDS = 5.0
"""How long the exit of a failed process may take; it may wait for others, or for a disk."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds that a process waits for the others to join, and that a phase may later last."""

    rendezvous_timeout: float = 300.0
    watchdog_timeout: float = 900.0


class SharedError(UserError):
    """An error that every process raises, so that one of them can report it for all."""

    def __init__(self, error: UserError) -> None:
        super().__init__(str(error))
        self.exit_status = error.exit_status


@dataclass(frozen=True)
class World:
    """One process among `size`; `rank` 0 writes the run's files."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes, on each of them; `tensor` is overwritten."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any process."""
        return bool(self.sum(torch.tensor(int(flag))))

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite all processes' tensors with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def from_main(self, make: Callable[[], A]) -> A:
        """The result of `make`, called on rank 0 alone, on every process; it must be picklable."""
        if self.size == 1:
            return make()
        held: list[Any] = [make() if self.main else None]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        made: A = held[0]
        return made

    def gather(self, value: A) -> list[A]:
        """The values of all processes by rank, on each of them; they must be picklable."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def gather_on_main(self, value: A) -> list[A]:
        """The values of all processes by rank on rank 0, an empty list on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size if self.main else []
        dist.gather_object(value, values if self.main else None, dst=0)
        return values

    @contextmanager
    def shared_errors(self) -> Iterator[None]:
        """Raise a `UserError` of any process in this context on all of them, as `SharedError`.

        All processes must enter the context, and none may use a collective in it. A process alone
        raises its own error.
        """
        error = None
        try:
            yield
        except UserError as raised:
            if self.size == 1:
                raise
            error = raised
        if self.size == 1:
            return
        first = next((one for one in self.gather(error) if one is not None), None)
        if first is not None:
            raise SharedError(first) from error

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            dist.barrier()


ALONE = World(rank=0, size=1, device=torch.device("cpu"))
"""The world of a process without others."""


@contextmanager
def connect(
    process: ProcessInfo,
    *,
    gpus: bool,
    timeouts: Timeouts,
    stopping: Callable[[], bool] = lambda: False,
    parent: int | None = None,
    remedy: str = RESUME,
) -> Iterator[tuple[World, Watchdog]]:
    """Join the other processes; yields the world and the watchdog of this process.

    `parent` is the process id of its agent, which may have ended; by default that of its parent.
    `remedy` ends the message of an error without one.

    Raises `RunError` that names the processes that did not join, or the address that cannot be
    reached; `RunError` in place of torch's error if the others are lost later; `Stopped` if
    `stopping` returns true before all have joined.
    """
    device = torch.device("cpu")
    if gpus:
        # srun may make only its own GPU visible to each process.
        device = torch.device("cuda", process.local_rank if torch.cuda.device_count() > 1 else 0)
        torch.cuda.set_device(device)
    world = World(rank=process.rank, size=process.size, device=device)
    store = _join(process, device, timeouts, stopping) if process.size > 1 else None
    watchdog = Watchdog(process.rank, process.size, store, timeouts.watchdog_timeout)
    if process.agent:
        # Without its agent nothing ends or restarts the job, so it saves and stops.
        watchdog.orphaned = ask_to_stop
        if parent is not None:
            watchdog.parent = parent
    try:
        with _shared_failures(process, watchdog, remedy):
            yield world, watchdog
    finally:
        watchdog.stop()
    # Not after an error: the others would see the lost connection before its cause.
    if process.size > 1:
        dist.destroy_process_group()


@contextmanager
def _shared_failures(process: ProcessInfo, watchdog: Watchdog, remedy: str) -> Iterator[None]:
    """Report an error in this context to the others; raise theirs if it is the cause."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        limit_exit_time(_EXIT_SECONDS, process)
        if process.size > 1 and is_connection_error(error):
            raise RunError(_lost(process, watchdog, error)) from error
        watchdog.announce(error)
        if process.size > 1:
            # The others must read it before the store ends with this process or its agent.
            time.sleep(_READING_SECONDS)
        if isinstance(error, UserError | OSError | KeyboardInterrupt):
            raise
        traceback.print_exc()
        failure = local_failure(process.rank, watchdog.phase, error)
        raise RunError(f"{failure}. The traceback is above. {remedy}") from error


def _lost(process: ProcessInfo, watchdog: Watchdog, error: BaseException) -> str:
    begun = time.monotonic()
    failure = watchdog.wait_for_failure(_AGENT_SECONDS)
    if process.agent:
        # The agent must see the process at fault end before this one.
        time.sleep(max(0.0, begun + _AGENT_SECONDS - time.monotonic()))
    if failure is None:
        text = f"rank {process.rank} lost the other processes ({watchdog.phase}): "
        text += first_line(error)[:200]
    else:
        text = f"{failure}\nRank {process.rank} ends too ({watchdog.phase})."
    report_to_agent(text)
    return text


def _join(
    process: ProcessInfo, device: torch.device, timeouts: Timeouts, stopping: Callable[[], bool]
) -> Store:
    """Join the process group when all processes have arrived; returns the watchdogs' store."""
    seconds, gpus = timeouts.rendezvous_timeout, device.type == "cuda"
    try:
        # Sums of tensors on the CPU, such as requests to stop, need gloo beside NCCL.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=_rendezvous(process, seconds, stopping),
            rank=process.rank,
            world_size=process.size,
            # Longer than the watchdog's, whose report is more specific.
            timeout=timedelta(seconds=min(timeouts.watchdog_timeout, 10**6) + 60),
            device_id=device if gpus else None,
        )
        # A second connection, as the first may be in a call that does not return.
        return PrefixStore(f"beats/{process.attempt}", _client(process, seconds, stopping))
    except dist.DistError as error:
        raise RunError(
            f"rank {process.rank} lost rank 0 or its agent at {process.host}:{process.port} while "
            f"joining: {first_line(error)[:200]}. See the output of the first machine"
        ) from error


def check_gpus(gpus_per_machine: int) -> None:
    """Raise `UserError` if this machine has fewer than `gpus_per_machine` GPUs."""
    available = torch.cuda.device_count()
    if gpus_per_machine > available:
        raise UserError(
            f"--num-gpus-per-machine {gpus_per_machine}: this machine has {available} GPUs that "
            f"torch {torch.__version__} can use; ask for at most {available} (0 trains on the CPU)"
        )


def _rendezvous(process: ProcessInfo, seconds: float, stopping: Callable[[], bool]) -> Store:
    """Wait until all processes have joined; returns the store of this attempt."""
    deadline = time.monotonic() + seconds
    # Processes of an earlier attempt may still be running.
    store = PrefixStore(
        f"virtex/{process.attempt}", _client(process, seconds, stopping, serve=True)
    )
    store.set(f"joined/{process.rank}", socket.gethostname())
    keys = [f"joined/{rank}" for rank in range(process.size)]
    while not store.check(keys):
        if stopping():
            raise Stopped(f"rank {process.rank} was stopped by a signal while waiting for others")
        if time.monotonic() > deadline:
            missing = [key.removeprefix("joined/") for key in keys if not store.check([key])]
            raise RunError(
                f"{len(missing)} of {process.size} processes did not join within {seconds:.0f} s: "
                f"rank {first_few(missing, 8)}. Each machine must run the same command, with its "
                f"own --machine-rank, and reach {process.host}:{process.port} (rank {process.rank} "
                f"on {socket.gethostname()} waited for them)"
            )
        time.sleep(0.05)
    return store


def _client(
    process: ProcessInfo, seconds: float, stopping: Callable[[], bool], *, serve: bool = False
) -> Store:
    """A connection to the store, which rank 0 serves unless the agent does."""
    serve = serve and process.rank == 0 and not process.agent_serves
    address = f"{process.host}:{process.port}"
    if not serve and not wait_for(process.host, process.port, seconds, stopping):
        raise RunError(
            f"rank {process.rank} on {socket.gethostname()} could not reach rank 0 at {address} "
            f"within {seconds:.0f} s. Check that it runs there, and that no firewall blocks the "
            "port"
        )
    try:
        return TCPStore(
            process.host,
            process.port,
            is_master=serve,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise RunError(
            f"rank {process.rank} cannot {'listen at' if serve else 'use'} {address}: "
            f"{first_line(error)[:200]}. Another program may be using the port: give another "
            "--dist-url (MASTER_PORT under torchrun and srun)"
        ) from error

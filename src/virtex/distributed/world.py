"""Processes and devices: who am I, how many are we, and sums over all of us."""

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

from virtex.distributed.ending import end_in
from virtex.distributed.environment import Place, wait_for
from virtex.distributed.failures import failure_here, is_of_the_connection, tell_agent
from virtex.distributed.signals import Stopped
from virtex.distributed.watchdog import Heartbeat, ask_to_stop
from virtex.errors import RunError, UserError

A = TypeVar("A")

_AGENT_SECONDS = 3.0
"""By when an agent has noticed that a process ended."""
_READING_SECONDS = 1.5
"""By when the other processes have read that one failed."""
_EXIT_SECONDS = 5.0
"""How long the end of a process that failed may take: it may wait for others, or for a disk."""


@dataclass(frozen=True)
class Limits:
    """How long, in seconds, a process waits for the others to come, and may be stuck later."""

    meeting: float = 300.0
    stuck: float = 900.0


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
        """The sum of all processes' tensors, on each of them; `tensor` is overwritten."""
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
        """What `make` gives on rank 0, where alone it is called, on each process; picklable."""
        if self.size == 1:
            return make()
        held: list[Any] = [make() if self.main else None]
        dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        made: A = held[0]
        return made

    def gather(self, value: A) -> list[A]:
        """The values of all processes, in order of their ranks, on each of them; picklable."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def connect(
    place: Place,
    *,
    gpus: bool,
    limits: Limits,
    stopping: Callable[[], bool] = lambda: False,
    parent: int | None = None,
) -> Iterator[tuple[World, Heartbeat]]:
    """The world that this process has a place in, and what watches that nobody is stuck in it.

    `parent` is the process id of its agent, which may have ended; by default that of its parent.

    Raises `RunError` that names the processes that did not come, or the address that cannot be
    reached, and one in place of torch's error when the others are lost later; `Stopped` where
    `stopping` while others are waited for.
    """
    device = torch.device("cpu")
    if gpus:
        # srun may show each process its own GPU alone.
        device = torch.device("cuda", place.local_rank if torch.cuda.device_count() > 1 else 0)
        torch.cuda.set_device(device)
    world = World(rank=place.rank, size=place.size, device=device)
    watched = None
    if place.size > 1:
        try:
            watched = _join(place, device, limits, stopping)
        except dist.DistError as error:
            raise RunError(
                f"rank {place.rank} lost rank 0 or its agent at {place.host}:{place.port} while "
                f"the processes met: {_first_line(error)}. See what the first machine says"
            ) from error
    heartbeat = Heartbeat(place.rank, place.size, watched, limits.stuck)
    if place.agent:
        # Without its agent nobody ends or restarts the job: it is left where it can go on.
        heartbeat.orphaned = ask_to_stop
        if parent is not None:
            heartbeat.parent = parent
    try:
        with _failures_shared(place, heartbeat):
            yield world, heartbeat
    finally:
        heartbeat.stop()
    # After an error the others would see the end of the connection before that of the process.
    if place.size > 1:
        dist.destroy_process_group()


@contextmanager
def _failures_shared(place: Place, heartbeat: Heartbeat) -> Iterator[None]:
    """Tell the others of an error in this context; in place of one of theirs, raise that."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        end_in(_EXIT_SECONDS, place)
        if place.size > 1 and is_of_the_connection(error):
            raise RunError(_lost(place, heartbeat, error)) from error
        heartbeat.announce(error)
        if place.size > 1:
            # So that the others can read it: the store may end with this process, or its agent.
            time.sleep(_READING_SECONDS)
        if isinstance(error, UserError | OSError | KeyboardInterrupt):
            raise
        traceback.print_exc()
        failure = failure_here(place.rank, heartbeat.where, error)
        raise RunError(
            f"{failure}. The traceback is above. What was saved is whole: continue with "
            "--resume-from latest"
        ) from error


def _lost(place: Place, heartbeat: Heartbeat, error: BaseException) -> str:
    begun = time.monotonic()
    failure = heartbeat.others_failure(_AGENT_SECONDS)
    if place.agent:
        # So that it sees first which process is at fault, and not this one.
        time.sleep(max(0.0, begun + _AGENT_SECONDS - time.monotonic()))
    if failure is None:
        text = f"rank {place.rank} lost the other processes ({heartbeat.where}): "
        text += _first_line(error)
    else:
        text = f"{failure}\nSo rank {place.rank} ends too ({heartbeat.where})."
    tell_agent(text)
    return text


def _join(
    place: Place, device: torch.device, limits: Limits, stopping: Callable[[], bool]
) -> Store:
    """Join the others, as soon as all are there; what the heartbeat tells and reads."""
    store = _meet(place, limits.meeting, stopping)
    gpus = device.type == "cuda"
    # Sums of tensors on the CPU, such as of the wish to stop, need gloo beside NCCL.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=store,
        rank=place.rank,
        world_size=place.size,
        # The heartbeat comes first, and knows more.
        timeout=timedelta(seconds=min(limits.stuck, 10**6) + 60),
        device_id=device if gpus else None,
    )
    # A connection of its own: the other may be in a call that does not come back.
    return PrefixStore(f"beats/{place.attempt}", _client(place, limits.meeting, stopping))


def check_gpus(gpus_per_machine: int) -> None:
    """Raise `UserError` if this machine has fewer GPUs than asked for."""
    available = torch.cuda.device_count()
    if gpus_per_machine > available:
        raise UserError(
            f"--num-gpus-per-machine {gpus_per_machine}: this machine has {available} GPUs that "
            f"torch {torch.__version__} can use; ask for at most {available} (0 trains on the CPU)"
        )


def _meet(place: Place, seconds: float, stopping: Callable[[], bool]) -> Store:
    """The store of this attempt, once all processes have come to it."""
    deadline = time.monotonic() + seconds
    # Processes of an attempt before may still be about.
    store = PrefixStore(f"virtex/{place.attempt}", _client(place, seconds, stopping, serve=True))
    store.set(f"came/{place.rank}", socket.gethostname())
    keys = [f"came/{rank}" for rank in range(place.size)]
    while not store.check(keys):
        if stopping():
            raise Stopped(f"rank {place.rank} was stopped by a signal while it waited for others")
        if time.monotonic() > deadline:
            missing = [key.removeprefix("came/") for key in keys if not store.check([key])]
            raise RunError(
                f"{len(missing)} of {place.size} processes have not come within {seconds:.0f} s: "
                f"rank {', '.join(missing[:8])}. Each machine must run the same command, with its "
                f"own --machine-rank, and reach {place.host}:{place.port} (waited for by rank "
                f"{place.rank} on {socket.gethostname()})"
            )
        time.sleep(0.05)
    return store


def _client(
    place: Place, seconds: float, stopping: Callable[[], bool], *, serve: bool = False
) -> Store:
    """A connection to the store, which rank 0 serves unless the agent does."""
    serve = serve and place.rank == 0 and not place.agent_serves
    address = f"{place.host}:{place.port}"
    if not serve and not wait_for(place.host, place.port, seconds, stopping):
        raise RunError(
            f"rank {place.rank} on {socket.gethostname()} could not reach rank 0 at {address} "
            f"within {seconds:.0f} s. Check that it runs there, and that no firewall lies between"
        )
    try:
        return TCPStore(
            place.host,
            place.port,
            is_master=serve,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        raise RunError(
            f"rank {place.rank} cannot {'listen at' if serve else 'use'} {address}: "
            f"{_first_line(error)}. Another program may use the port: give another --dist-url "
            "(MASTER_PORT under torchrun and srun)"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200]

"""Processes and devices: who am I, how many are we, and sums over all of us."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from virtex.errors import UserError

A = TypeVar("A")

COLLECTIVE_TIMEOUT = timedelta(minutes=15)
"""How long a process waits for the others before the run ends with an error."""


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

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite all processes' tensors with those of rank 0."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Return when every process has come here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def connect(*, gpus: bool) -> Iterator[World]:
    """The world that torchrun's environment variables describe, or a world of one process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if gpus:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank=0, size=1, device=device)
        return
    dist.init_process_group(
        "nccl" if gpus else "gloo",
        timeout=COLLECTIVE_TIMEOUT,
        device_id=device if gpus else None,
    )
    try:
        yield World(rank=rank, size=size, device=device)
    finally:
        dist.destroy_process_group()


def check_gpus(gpus_per_machine: int) -> None:
    """Raise `UserError` if this machine has fewer GPUs than asked for."""
    available = torch.cuda.device_count()
    if gpus_per_machine > available:
        raise UserError(
            f"--num-gpus-per-machine {gpus_per_machine}: this machine has {available} GPUs that "
            f"torch {torch.__version__} can use; ask for at most {available} (0 trains on the CPU)"
        )


def launch(
    function: Callable[[A], int],
    argument: A,
    *,
    processes: int,
    machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "tcp://127.0.0.1:23456",
) -> int:
    """Call `function` in `processes` processes on this machine; its largest return value.

    Under torchrun, or for a single process, it is called here. With several machines each must run
    the same command with its own `machine_rank`; `dist_url` is `tcp://host:port` of the first.
    """
    if "WORLD_SIZE" in os.environ or processes * machines == 1:
        return function(argument)
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=machines,
        max_nodes=machines,
        nproc_per_node=processes,
        # The machines find each other by this name; torch would draw another on each of them.
        run_id="virtex",
        rdzv_backend="static",
        rdzv_endpoint=dist_url.removeprefix("tcp://"),
        rdzv_configs={"rank": machine_rank},
        max_restarts=0,
    )
    try:
        results: dict[int, int] = elastic_launch(config, _reporting)(function, argument)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A signal's number is negative; a shell adds it to 128.
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return max(results.values())


def _reporting(function: Callable[[A], int], argument: A) -> int:
    """Call `function`; an error for the user becomes a message, and ends the other processes too.

    Processes that wait for one that has failed would wait until `COLLECTIVE_TIMEOUT`.
    """
    try:
        return function(argument)
    except UserError as error:
        print(f"virtex: error: {error}", file=sys.stderr, flush=True)
        # Not sys.exit: other threads and the group's destruction may wait for the others.
        os._exit(error.exit_status)

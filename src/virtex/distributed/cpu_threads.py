"""The threads of torch on the CPU, and whether each has a core that nothing else uses."""

import math
import os


def available_cores() -> int:
    """The number of cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_cores(processes: int) -> None:
    """Give torch in this process, one of several on the CPU, its share of the cores.

    OMP_NUM_THREADS has priority.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(available_cores() // processes, 1))


def busy_cores_advice(threads: int, cores: int, load: float) -> str | None:
    """A line if `threads` that wait for each other do not all have a core of their own.

    `load` is how many of the `cores` were in use by other processes, on average. Matrix products
    wait for all threads many times a step, and spin while they wait; a thread without a core then
    holds up the others for as long as the scheduler takes.
    """
    free = max(cores - math.ceil(min(load, cores) - 0.5), 1)
    if load < 1 or threads <= free:
        return None
    return (
        f"other processes use about {min(load, cores):.1f} of {cores} cores, and this one computes"
        f" with {threads} threads, which wait for each other; without a free core for each of them"
        f" a step can take ten times as long. Set the environment variable OMP_NUM_THREADS={free}"
    )


def machine_load() -> float:
    """How many cores all processes of the machine used or waited for in the last minute."""
    return os.getloadavg()[0]

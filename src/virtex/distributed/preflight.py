"""Before a job of many processes starts: can all of them work, and are they alike?

Each process tells facts about itself; all of them hear all, so that all come to the same verdict.
"""

import hashlib
import os
import platform
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from virtex import __version__
from virtex.distributed.shared_memory import free_shared_memory, too_little
from virtex.distributed.world import World

_PROBE = 2**20
"""Numbers in the all-reduce that is timed: 4 MB."""


@dataclass(frozen=True)
class Needs:
    """What a process needs: bytes of disk, where it saves, and of shared memory for its loader."""

    directory: Path
    disk: int
    shared_memory: int


@dataclass(frozen=True)
class Facts:
    """What a process tells of itself; `alike` must be the same on all, by name."""

    machine: str
    device: str
    alike: Mapping[str, str]
    needs: Needs
    free_disk: int
    free_shared_memory: int | None
    writable: bool
    sum_is_right: bool
    megabytes_per_second: float


def facts(world: World, alike: Mapping[str, str], needs: Needs) -> Facts:
    """The facts of this process; all processes must come here together."""
    right, speed = _all_reduce(world)
    ours = {
        "virtex": __version__,
        "code": digest_of_code(Path(__file__).parent.parent),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }
    # Of a new run the directory is not there yet.
    place = next(path for path in (needs.directory, *needs.directory.parents) if path.exists())
    device = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"
    return Facts(
        machine=socket.gethostname(),
        device=device,
        alike={**ours, **alike},
        needs=needs,
        free_disk=shutil.disk_usage(place).free,
        free_shared_memory=free_shared_memory(),
        writable=os.access(place, os.W_OK | os.X_OK),
        sum_is_right=right,
        megabytes_per_second=speed,
    )


def verdicts(all_facts: Sequence[Facts]) -> list[list[str]]:
    """For each process what is wrong with it, in words; an empty list where nothing is."""
    together: dict[str, int] = {}
    for one in all_facts:
        together[one.machine] = together.get(one.machine, 0) + one.needs.shared_memory
    return [_verdict(rank, one, all_facts[0], together) for rank, one in enumerate(all_facts)]


def _verdict(rank: int, one: Facts, first: Facts, together: Mapping[str, int]) -> list[str]:
    found = [
        f"{name} is {value}, of rank 0 it is {first.alike.get(name)}"
        for name, value in one.alike.items()
        if value != first.alike.get(name)
    ]
    if not one.sum_is_right:
        found.append("the sum over all processes came out wrong: its network or GPU is at fault")
    # Rank 0 alone saves; the others write a log.
    if not one.writable:
        found.append(f"{one.needs.directory} may not be written to")
    if rank == 0 and one.free_disk < one.needs.disk:
        found.append(
            f"{one.needs.directory} has {_gb(one.free_disk)} free, two checkpoints take "
            f"{_gb(one.needs.disk)}"
        )
    shared = one.free_shared_memory
    if shared is not None and shared < together[one.machine]:
        found.append(too_little(together[one.machine], shared))
    return found


def report(all_facts: Sequence[Facts], found: Sequence[Sequence[str]]) -> list[str]:
    """A line for each process, and one for each thing that is wrong with it."""
    lines = []
    for rank, (one, wrong) in enumerate(zip(all_facts, found, strict=True)):
        speed = f", all-reduce {one.megabytes_per_second:.0f} MB/s" if len(all_facts) > 1 else ""
        shared = one.free_shared_memory
        memory = "" if shared is None else f", shared memory {_gb(shared)} free"
        lines.append(
            f"rank {rank} on {one.machine} ({one.device}): {'NOT READY' if wrong else 'ready'}; "
            f"disk {_gb(one.free_disk)} free{memory}{speed}"
        )
        lines += [f"  {line}" for line in wrong]
    return lines


def _all_reduce(world: World) -> tuple[bool, float]:
    """Whether a sum over all processes is right, and megabytes of it a second."""
    tensor = torch.full((_PROBE,), float(world.rank + 1), device=world.device)
    world.sum(torch.ones(1, device=world.device))  # connections are made at first use
    start = time.perf_counter()
    world.sum(tensor)
    right = bool((tensor == world.size * (world.size + 1) / 2).all())
    return right, 4 * _PROBE / 1e6 / (time.perf_counter() - start)


def digest_of_code(package: Path) -> str:
    """A short digest of a package's source."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

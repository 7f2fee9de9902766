"""Checks before a job of several processes starts: can each of them work, and do they agree?

Each process sends a report of itself to all others, so that all reach the same result.
"""

import hashlib
import os
import platform
import shutil
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from virtex._version import __version__
from virtex.distributed.shared_memory import free_shared_memory, shared_memory_advice
from virtex.distributed.world import World

_PROBE = 2**20
"""Numbers in the all-reduce that is timed: 4 MB."""


@dataclass(frozen=True)
class Requirements:
    """Bytes that a process requires: of disk in `directory`, and of shared memory for loading."""

    directory: Path
    disk: int
    shared_memory: int


@dataclass(frozen=True)
class ProcessReport:
    """A process's report of itself; the values of `must_match` must be equal on all processes."""

    machine: str
    device: str
    must_match: Mapping[str, str]
    requirements: Requirements
    free_disk: int
    free_shared_memory: int | None
    writable: bool
    sum_is_right: bool
    megabytes_per_second: float


def inspect_process(
    world: World, must_match: Mapping[str, str], requirements: Requirements
) -> ProcessReport:
    """The report of this process; all processes must call this together."""
    right, speed = _all_reduce(world)
    # The directory of a new run does not exist yet.
    existing = next(
        path for path in (requirements.directory, *requirements.directory.parents) if path.exists()
    )
    gpu = world.device.type == "cuda"
    return ProcessReport(
        machine=socket.gethostname(),
        device=torch.cuda.get_device_name(world.device) if gpu else "CPU",
        must_match={
            "virtex": __version__,
            "code": digest_of_code(Path(__file__).parent.parent),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
            **must_match,
        },
        requirements=requirements,
        free_disk=shutil.disk_usage(existing).free,
        free_shared_memory=free_shared_memory(),
        writable=os.access(existing, os.W_OK | os.X_OK),
        sum_is_right=right,
        megabytes_per_second=speed,
    )


def find_problems(reports: Sequence[ProcessReport]) -> list[list[str]]:
    """The problems of each process as messages; an empty list for a process without any."""
    together: Counter[str] = Counter()
    for report in reports:
        together[report.machine] += report.requirements.shared_memory
    return [_problems(rank, report, reports[0], together) for rank, report in enumerate(reports)]


def _problems(
    rank: int, report: ProcessReport, first: ProcessReport, together: Mapping[str, int]
) -> list[str]:
    found = [
        f"{name} is {value}, but {first.must_match.get(name)} on rank 0"
        for name, value in report.must_match.items()
        if value != first.must_match.get(name)
    ]
    if not report.sum_is_right:
        found.append("its sum over all processes is wrong: the network or its GPU is at fault")
    # Rank 0 alone saves; the others write a log.
    if not report.writable:
        found.append(f"{report.requirements.directory} is not writable")
    if rank == 0 and report.free_disk < report.requirements.disk:
        found.append(
            f"{report.requirements.directory} has {_gb(report.free_disk)} free, but two "
            f"checkpoints take {_gb(report.requirements.disk)}"
        )
    shared = report.free_shared_memory
    if shared is not None and shared < together[report.machine]:
        found.append(shared_memory_advice(together[report.machine], shared))
    return found


def report_lines(reports: Sequence[ProcessReport], problems: Sequence[Sequence[str]]) -> list[str]:
    """A line for each process, followed by a line for each of its problems."""
    lines = []
    for rank, (report, found) in enumerate(zip(reports, problems, strict=True)):
        speed = f", all-reduce {report.megabytes_per_second:.0f} MB/s" if len(reports) > 1 else ""
        shared = report.free_shared_memory
        memory = "" if shared is None else f", shared memory {_gb(shared)} free"
        lines.append(
            f"rank {rank} on {report.machine} ({report.device}): "
            f"{'NOT READY' if found else 'ready'}; disk {_gb(report.free_disk)} free{memory}{speed}"
        )
        lines += [f"  {line}" for line in found]
    return lines


def _all_reduce(world: World) -> tuple[bool, float]:
    """Whether a sum over all processes is correct, and its speed in MB/s."""
    tensor = torch.full((_PROBE,), float(world.rank + 1), device=world.device)
    world.sum(torch.ones(1, device=world.device))  # the first use creates connections
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

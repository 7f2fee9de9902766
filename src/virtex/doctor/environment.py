"""Findings on the machine and on what is installed."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from virtex._version import __version__
from virtex.build.model import build_objective
from virtex.build.optimizer import estimate_checkpoint_bytes
from virtex.checkpoints.file import Retention
from virtex.config.schema import Config
from virtex.distributed.shared_memory import free_shared_memory
from virtex.doctor.findings import Finding

DISTRIBUTION = "virtex-pretraining"
_SHOWN = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "sentencepiece")
_LITTLE_SHARED_MEMORY = 1 << 30


def environment_findings() -> Iterator[Finding]:
    """Versions, devices, cores and shared memory."""
    installed = [f"{name} {importlib.metadata.version(name)}" for name in _SHOWN if _has(name)]
    yield Finding(
        "versions",
        "note",
        f"virtex {__version__}, Python {platform.python_version()}, {', '.join(installed)}",
    )
    unfit = list(_unfit_versions())
    if unfit:
        yield Finding.of_items(
            "unsupported-versions",
            "problem",
            "packages that are missing or of versions that are not supported",
            unfit,
            advice="pip install --upgrade virtex-pretraining",
        )
    yield Finding("devices", "note", _devices())
    if importlib.util.find_spec("simplejpeg") is None:
        yield Finding(
            "slow-jpeg",
            "warning",
            "simplejpeg is not installed, so that Pillow decodes JPEG files, more slowly",
            "install simplejpeg",
        )
    free = free_shared_memory()
    if free is not None and free < _LITTLE_SHARED_MEMORY:
        yield Finding(
            "shared-memory",
            "warning",
            f"/dev/shm has {free / 1e6:,.0f} MB free, through which loader workers pass batches",
            "in a container: --shm-size or --ipc=host; otherwise use few --cpu-workers",
        )


def _has(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _unfit_versions() -> Iterator[str]:
    """The requirements of the package, without extras, that are not met."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires(DISTRIBUTION) or () if _has(DISTRIBUTION) else ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not _has(requirement.name):
            if requirement.name != "simplejpeg":
                yield f"{requirement.name} is missing; expected {requirement.specifier}"
            continue
        version = importlib.metadata.version(requirement.name)
        if not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}; expected {requirement.specifier}"


def _devices() -> str:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    found = [f"{usable} of {cores} CPU cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found.append(f"{memory / 2**30:.0f} GB of memory")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(f"{properties.name} with {properties.total_memory / 2**30:.0f} GB")
    if torch.cuda.device_count() == 0:
        found.append("no GPU that torch can use")
    return ", ".join(found)


def disk_findings(config: Config, directory: Path, retention: Retention) -> Iterator[Finding]:
    """Whether the checkpoints that a run keeps fit on the disk of its directory."""
    with torch.device("meta"):
        objective = build_objective(config, weights_follow=True)
    size = estimate_checkpoint_bytes(config, objective)
    count = 1 + (retention.recent or 1)
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = (
        f"a checkpoint takes about {size / 1e6:,.0f} MB; {existing} has {free / 1e9:,.1f} GB free"
    )
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "not-writable", "problem", f"{existing} cannot be written", "set --serialization-dir"
        )
    elif free < count * size:
        yield Finding(
            "disk-space",
            "problem",
            f"{text}, and {count} of them are there at a time",
            "free space, or set --serialization-dir to another disk",
        )
    else:
        yield Finding("disk", "note", text)

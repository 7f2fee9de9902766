"""Packing a data set into tar shards, in parallel, so that a killed job can resume."""

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from virtex.data.images import DEFAULT_LIMITS, BadImage, ImageLimits
from virtex.data.pixel_sample import (
    choose_ranges,
    describe_ranges,
    range_problem,
    sample_pixels,
    sampled_images,
)
from virtex.data.pixel_values import DEFAULT_PIXELS, PixelSettings
from virtex.data.records import Records
from virtex.data.shards.manifest import (
    MANIFEST,
    ShardSummary,
    index_name,
    manifest_json,
    summarize_shard,
)
from virtex.data.shards.shard_workers import in_workers
from virtex.data.shards.store import LocalStore
from virtex.data.shards.tar_index import SUFFIX, TarIndex, read_index
from virtex.data.shards.writer import Packing, write_shard
from virtex.errors import RunError, UserError

SETTINGS = "pack.json"
"""The file in a split's directory that describes its source and how it is packed."""


@dataclass(frozen=True)
class PackJob:
    """One split to pack into `directory`; `categories` are their names, if it has any."""

    records: Records
    directory: Path
    packing: Packing
    samples_per_shard: int
    categories: tuple[str, ...] | None = None
    workers: int = 1
    limits: ImageLimits = DEFAULT_LIMITS
    pixels: PixelSettings = DEFAULT_PIXELS

    @property
    def shards(self) -> int:
        """The number of shards."""
        return math.ceil(len(self.records) / self.samples_per_shard)

    def positions(self, shard: int) -> range:
        """The positions of a shard's records."""
        start = shard * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, len(self.records)))

    def name(self, shard: int) -> str:
        """The name of a tar file; names sort as numbers do."""
        return f"{shard:0{max(5, len(str(self.shards - 1)))}}.tar"


@dataclass(frozen=True)
class Packed:
    """The result: samples and bytes in the shards, and how many shards were kept."""

    shards: int
    samples: int
    tar_bytes: int
    kept: int
    samples_written: int
    excluded: int
    seconds: float


@dataclass(frozen=True)
class PackedShard:
    """A finished shard: written just now, or `kept` from an earlier job."""

    summary: ShardSummary
    report: tuple[str, ...]
    bad: tuple[BadImage, ...]
    kept: bool


def pack(job: PackJob, report: Callable[[PackedShard], None]) -> Packed:
    """Write the shards that are missing, then `shards.json`; `report` is called with each shard.

    Raises UserError if the directory holds something else, and for bad images.
    """
    start = time.monotonic()
    _reserve(job)
    shards: list[PackedShard] = []
    for shard in in_workers(_ShardWriting(job), min(job.workers, job.shards), doing="packing"):
        report(shard)
        shards.append(shard)
    summaries = [shard.summary for shard in shards]
    samples = sum(summary.samples for summary in summaries)
    if not samples:
        raise UserError(f"{job.directory}: no image can be read, so there is nothing to train on")
    manifest = manifest_json(
        summaries,
        labels="captions" if job.categories is None else "categories",
        categories=job.categories,
        report=[f"{shard.summary.name}: {line}" for shard in shards for line in shard.report],
    )
    _write(job.directory, MANIFEST, manifest)
    return Packed(
        shards=job.shards,
        samples=samples,
        tar_bytes=sum(summary.tar_bytes for summary in summaries),
        kept=sum(shard.kept for shard in shards),
        samples_written=sum(shard.summary.samples for shard in shards if not shard.kept),
        excluded=len(job.records) - samples,
        seconds=time.monotonic() - start,
    )


def with_sampled_range(job: PackJob) -> tuple[PackJob, list[str]]:
    """The job with a range of values for reduced images, and a line for each finding.

    The range is found in a sample of the images unless the job has one. Raises BadImage if no image
    can be read and none may be skipped.
    """
    if job.packing.reduction is None:
        return job, []
    try:
        sample = sample_pixels(sampled_images(job.records), job.pixels, job.limits)
    except BadImage:
        if not job.packing.skip_bad:
            raise
        return job, []
    if job.pixels.ranges is None:
        ranges = choose_ranges(sample, job.pixels.percentiles)
        job = replace(job, pixels=replace(job.pixels, ranges=ranges))
    lines = (describe_ranges(sample, job.pixels), range_problem(sample, job.pixels))
    return job, [*filter(None, lines), *(f"of samples, {line}" for line in sample.note_lines)]


def _reserve(job: PackJob) -> None:
    """Reserve the directory for this job; raises UserError if it holds something else."""
    settings: dict[str, object] = {
        "records": job.records.fingerprint,
        "samples": len(job.records),
        "samples_per_shard": job.samples_per_shard,
        **asdict(job.packing),
        "categories": job.categories,
        **(job.pixels.record if job.packing.reduction is not None else {}),
    }
    content = (json.dumps(settings, indent=1) + "\n").encode()
    store = LocalStore(str(job.directory))
    found = job.directory.iterdir() if job.directory.exists() else ()
    if all(path.name.startswith(".") for path in found):
        _write(job.directory, SETTINGS, content)
        return
    if SETTINGS not in store.list_files():
        raise UserError(
            f"{job.directory} is not empty and holds no {SETTINGS} of an earlier `virtex pack`;"
            " give another OUTPUT"
        )
    before = store.read(SETTINGS)
    if before != content:
        raise UserError(
            f"{job.directory} was packed from other data or with other settings"
            f" ({_difference(before, settings)}); give another OUTPUT, or remove it"
        )
    for partial in job.directory.glob(".*.partial-*"):
        partial.unlink(missing_ok=True)


def _difference(before: bytes, settings: dict[str, object]) -> str:
    try:
        values: Any = json.loads(before)
        now = json.loads(json.dumps(settings))
        names = [name for name in now if values.get(name) != now[name]]
    except (ValueError, AttributeError):
        return f"its {SETTINGS} is damaged"
    return "; ".join(f"{name} was {values.get(name)}, is {now[name]}" for name in names)


def _write(directory: Path, name: str, content: bytes) -> None:
    if not LocalStore(str(directory)).write(name, content):
        raise UserError(f"cannot write into {directory}: permission denied; give another OUTPUT")


class _ShardWriting(Dataset[PackedShard | UserError]):
    """Writes the shard of a number, in a worker process; errors are returned as values."""

    def __init__(self, job: PackJob) -> None:
        self._job = job
        self._store = LocalStore(str(job.directory))

    def __len__(self) -> int:
        return self._job.shards

    def __getitem__(self, shard: int) -> PackedShard | UserError:
        name = self._job.name(shard)
        index = self._kept(name)
        if index is not None:
            return PackedShard(summarize_shard(name, index), index.excluded, (), kept=True)
        path = self._job.directory / name
        try:
            index, bad = write_shard(
                self._job.records,
                self._job.positions(shard),
                path,
                self._job.packing,
                self._job.limits,
                self._job.pixels,
            )
            _write(self._job.directory, index_name(name), index.to_bytes())
        except UserError as error:
            return error
        except OSError as error:
            return RunError(f"cannot write {path}: {error.strerror}")
        return PackedShard(summarize_shard(name, index), index.excluded, tuple(bad), kept=False)

    def _kept(self, name: str) -> TarIndex | None:
        """The index of a shard that an earlier job finished, if it fits the shard."""
        path = self._job.directory / name
        if not path.is_file() or not path.with_suffix(SUFFIX).is_file():
            return None
        try:
            index = read_index(self._store.read(index_name(name)), str(path.with_suffix(SUFFIX)))
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (UserError, OSError):
            return None
        return index if digest == index.tar_sha256 else None

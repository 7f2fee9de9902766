"""Measurements on this machine: memory and speed of training steps, and speed of the loader."""

import io
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from virtex.config.schema import Config
from virtex.data.dataset import ExampleDataset, Key
from virtex.data.images import BadImage, PixelArray, decode_image, read_bytes
from virtex.data.pixel_sample import evenly_spaced
from virtex.data.transforms import Augmented
from virtex.distributed.cpu_threads import available_cores
from virtex.doctor.step_trial import StepCost, measure_step

_USABLE = 0.8
"""The share of the free memory that a run may take."""
_LEAST_BATCH, _MOST_BATCH = 4, 1024
_STEP_SECONDS = 4.0
_LOADER_SECONDS = 4.0
_LOADED, _PACKED = 256, 24
_SHORT_SIDE = 10 / 7
"""The short side to pack at, as a multiple of the crop: 320 pixels for crops of 224."""
_QUALITY = 90


@dataclass(frozen=True)
class MemoryFit:
    """The memory of training steps as a function of their batch, by two measurements.

    `free` are the bytes that are there for a run, `largest` the greatest batch for which a run
    takes at most 80 % of them, up to 1,024.
    """

    device: str
    costs: tuple[StepCost, ...]
    free: int
    largest: int

    def bytes_of(self, batch_size: int) -> int:
        """The estimated peak of a step of `batch_size` images."""
        small, large = self.costs[0], self.costs[-1]
        if small is large:
            return small.peak_bytes
        slope = (large.peak_bytes - small.peak_bytes) / (large.batch_size - small.batch_size)
        return round(small.peak_bytes + max(slope, 0.0) * (batch_size - small.batch_size))

    def lines(self, batch_size: int) -> list[str]:
        """What a user should know for a run with `batch_size` images on the device."""
        fastest = max(self.costs, key=lambda cost: cost.images_per_second)
        return [
            f"on {self.device}, a training step of {fastest.batch_size} images takes"
            f" {fastest.seconds:.2f} s, {fastest.images_per_second:.1f} images/s",
            f"a batch of {batch_size} takes about {self.bytes_of(batch_size) / 1e9:.1f} GB of"
            f" {self.free / 1e9:.1f} GB that are free on {self.device}; batches of up to"
            f" {self.largest} take at most {_USABLE:.0%} of these",
        ]


@dataclass(frozen=True)
class LoaderSpeed:
    """Images per second that one loader worker gives, and what part of its time is decoding.

    `packed` is that of the same images with a short side of `short_side` pixels, or None if the
    images are not larger.
    """

    per_worker: float
    decoding: float
    short_side: int
    packed: float | None

    def workers_for(self, images_per_second: float) -> int:
        """The workers that feed a device, with a tenth to spare."""
        return math.ceil(round(1.1 * images_per_second / self.per_worker, 6))

    def lines(self, images_per_second: float) -> list[str]:
        """What limits a run on a device of so many images per second, and what helps."""
        workers, cores = self.workers_for(images_per_second), available_cores()
        fed = f"the device takes {images_per_second:.1f} images/s: {workers} --cpu-workers feed it"
        if workers > cores:
            fed += f", and there are {cores} cores, so that loading limits the run"
        found = [
            f"a loader worker gives {self.per_worker:.1f} images/s, and spends"
            f" {self.decoding:.0%} of its time on decoding",
            fed,
        ]
        if self.packed is not None:
            ratio = self.packed / self.per_worker
            found.append(
                f"shards of `virtex pack --short-side {self.short_side}` would give"
                f" {self.packed:.1f} images/s a worker, {ratio:.1f} times as many"
            )
        return found


def default_device() -> str:
    """The device that a run on this machine would use."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def measure_memory(config: Config, device: str) -> MemoryFit | None:
    """Measure steps of two batch sizes, each in a process of its own.

    None if not even the smaller one fits. The configuration must have its sizes; takes about 20
    seconds for small networks, and a minute for ResNet-50 on two cores. Raises RunError.
    """
    costs: list[StepCost] = []
    for batch_size in (_LEAST_BATCH, 4 * _LEAST_BATCH):
        cost = measure_step(config, batch_size, device, _STEP_SECONDS)
        if cost is None:
            break
        costs.append(cost)
    if not costs:
        return None
    fit = MemoryFit(device, tuple(costs), free_memory(device), _LEAST_BATCH)
    sizes = range(_MOST_BATCH, _LEAST_BATCH, -_LEAST_BATCH) if len(costs) > 1 else ()
    allowed = _USABLE * fit.free
    largest = next((size for size in sizes if fit.bytes_of(size) <= allowed), _LEAST_BATCH)
    return MemoryFit(device, fit.costs, fit.free, largest)


def free_memory(device: str) -> int:
    """The bytes that a new process can have: of the GPU, or of this machine or container."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0]
    found = [_available()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        values = [_number(Path(limit)), _number(Path(used))]
        if values[0] is not None and values[1] is not None:
            found.append(max(values[0] - values[1], 0))
    return min(found)


def _available() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    """The number in a file of the system; None for `max`, or without the file."""
    text = path.read_text().strip() if path.exists() else ""
    return int(text) if text.isdigit() else None


def measure_loader(examples: ExampleDataset, crop: int) -> LoaderSpeed | None:
    """Read, decode and augment a sample of training images in this process, as a worker does.

    None if no image of the sample can be read. Takes about ten seconds.
    """
    positions = evenly_spaced(len(examples), _LOADED)
    begin, count = time.monotonic(), 0
    for position in positions:
        try:
            examples[Key(0, position)]
        except BadImage:
            continue
        count += 1
        if time.monotonic() - begin > _LOADER_SECONDS:
            break
    if not count:
        return None
    seconds = (time.monotonic() - begin) / count
    short_side = math.ceil(_SHORT_SIDE * crop / 32) * 32
    sample = _stored(examples, positions[:: max(len(positions) // _PACKED, 1)])
    decoding = _decode_seconds(examples, sample)
    smaller = [_resized(examples, data, short_side) for data in sample]
    packed = None
    if any(small is not None for small in smaller):
        kept = [small or data for small, data in zip(smaller, sample, strict=True)]
        other = _decode_seconds(examples, kept) + _augment_seconds(examples, kept)
        own = decoding + _augment_seconds(examples, sample)
        packed = own / other / seconds
    return LoaderSpeed(1 / seconds, min(decoding / seconds, 1.0), short_side, packed)


def _stored(examples: ExampleDataset, positions: Sequence[int]) -> list[bytes]:
    """The bytes of image files that can be read."""
    found = []
    for position in positions:
        try:
            data = read_bytes(examples.records[position].image, examples.limits)
            _decode(examples, data)
        except BadImage:
            continue
        found.append(data)
    return found


def _decode(examples: ExampleDataset, data: bytes) -> PixelArray:
    return decode_image(data, Path("sampled"), examples.limits, examples.pixels)


def _decode_seconds(examples: ExampleDataset, files: Sequence[bytes]) -> float:
    begin = time.monotonic()
    for data in files:
        _decode(examples, data)
    return (time.monotonic() - begin) / len(files)


def _augment_seconds(examples: ExampleDataset, files: Sequence[bytes]) -> float:
    images = [_decode(examples, data) for data in files]
    begin = time.monotonic()
    for number, image in enumerate(images):
        augmented = Augmented(image)
        for transform in examples.transforms:
            augmented = transform(augmented, np.random.default_rng(number))
    return (time.monotonic() - begin) / len(files)


def _resized(examples: ExampleDataset, data: bytes, short_side: int) -> bytes | None:
    """A JPEG file with this short side, as `virtex pack` writes it; None if it is not larger."""
    pixels = _decode(examples, data)
    scale = short_side / min(pixels.shape[:2])
    if scale >= 1 or pixels.shape[2] != 3:
        return None
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=_QUALITY
    )
    return file.getvalue()

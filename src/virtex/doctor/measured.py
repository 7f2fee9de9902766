"""Findings from measurements of a run's steps and of its loader."""

from collections.abc import Iterator

from virtex.build.data import open_data
from virtex.build.observer import Observer
from virtex.config.schema import Config
from virtex.doctor.findings import Finding
from virtex.doctor.measure import default_device, measure_loader, measure_memory
from virtex.errors import UserError

_FULL = 0.9
"""The share of the free memory above which a batch may not fit."""


def measured_findings(config: Config, observer: Observer) -> Iterator[Finding]:
    """Memory for the batch, the batch that would fit, and whether loader or device is slower."""
    data = config.data.model_copy(update={"on_bad_image": "skip"})
    try:
        opened = open_data(config.model_copy(update={"data": data}), observer)
    except UserError as error:
        yield Finding("measured", "note", f"nothing is measured, as a run could not start: {error}")
        return
    device = default_device()
    batch_size = config.optim.batch_size // config.optim.accumulate
    memory = measure_memory(opened.config, device)
    if memory is None:
        text = f"there is not enough memory on {device} for a step of 4 images"
        yield Finding("memory", "problem", text, "use a smaller network or smaller images")
        return
    for line in memory.lines(batch_size):
        yield Finding("measured", "note", line)
    if memory.bytes_of(batch_size) > _FULL * memory.free:
        yield Finding(
            "memory",
            "problem",
            f"a batch of {batch_size} needs about {memory.bytes_of(batch_size) / 1e9:.1f} GB, and"
            f" {memory.free / 1e9:.1f} GB are free on {device}",
            f"set OPTIM.BATCH_SIZE to at most {memory.largest}, or OPTIM.ACCUMULATE higher",
        )
    if opened.remote is not None:
        yield Finding("measured", "note", "the loader is not measured on remote shards")
        return
    speed = measure_loader(opened.training, config.data.image_crop_size)
    if speed is not None:
        for line in speed.lines(memory.costs[-1].images_per_second):
            yield Finding("measured", "note", line)

"""A detector to train: its data, its settings with the published defaults, and their checks."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from virtex.build.images import pixel_settings
from virtex.data.images import DEFAULT_LIMITS, ImageLimits, OnBadImage
from virtex.data.pixel_values import PixelSettings
from virtex.errors import UserError
from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.dense.coco_figures import check_pycocotools
from virtex.evaluation.dense.coco_tree import read_coco_objects
from virtex.evaluation.dense.examples import ImageSizes
from virtex.evaluation.dense.networks import PYRAMID_CHANNELS, check_residual, check_rgb
from virtex.evaluation.dense.objects import ObjectData, drop_unusable_images
from virtex.evaluation.dense.training import Plan, find_progress
from virtex.evaluation.dense.voc_tree import read_voc_objects, voc_directory
from virtex.optim.schedules import multistep
from virtex.training.precision import Precision

DetectorName = Literal["faster-rcnn", "mask-rcnn"]
PUBLISHED_BATCH, PUBLISHED_RATE = 16, 0.02
_DECAY = 0.1
_SMALLEST = 64
"""The shorter side in pixels at which the smallest map of the pyramid has two positions."""


@dataclass(frozen=True)
class Defaults:
    """What a protocol of the paper trains with, at 16 images a batch.

    The learning rate falls to a tenth after each of the `drops`, shares of all iterations. In
    training the shorter side is at least `smallest_share` of that in the test.
    """

    iterations: int
    warmup: int
    drops: tuple[float, float]
    smallest_share: float


DEFAULTS = {
    "voc": Defaults(24_000, 100, (18 / 24, 22 / 24), 480 / 800),
    "coco": Defaults(180_000, 1000, (120 / 180, 160 / 180), 640 / 800),
}


@dataclass(frozen=True)
class DetectionSettings:
    """How detectors are trained and run; None is the published value, at this batch size."""

    frozen: bool = False
    iterations: int | None = None
    batch_size: int = PUBLISHED_BATCH
    learning_rate: float | None = None
    shorter_side: int = 800
    longer_side: int | None = None
    seed: int = 0
    workers: int = 0
    save_every: int = 1000
    channels: int = PYRAMID_CHANNELS
    limits: ImageLimits = DEFAULT_LIMITS
    on_bad_image: OnBadImage = "error"


def open_detection(
    root: Path,
    detector: DetectorName | None,
    on_bad_image: OnBadImage,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[ObjectData, DetectorName]:
    """The objects of a VOC or COCO tree and the detector, by default the paper's for the tree.

    `advance` counts the images whose headers are read. Raises `UserError` for data that no detector
    can be trained on.
    """
    check_pycocotools()
    if voc_directory(root) is not None:
        if detector == "mask-rcnn":
            raise UserError(f"{root} is a VOC tree, whose objects have boxes alone: no mask-rcnn")
        data = read_voc_objects(root)
        return drop_unusable_images(data, on_bad_image, advance), "faster-rcnn"
    if not (root / "annotations").is_dir():
        raise UserError(
            f"--data {root}: expected a VOC2007 tree, or a COCO tree with "
            "annotations/instances_{train,val}2017.json"
        )
    chosen: DetectorName = detector or "mask-rcnn"
    data = read_coco_objects(root, masks=chosen == "mask-rcnn", on_bad_image=on_bad_image)
    return drop_unusable_images(data, on_bad_image, advance), chosen


def objects_hash(data: ObjectData) -> str:
    """A hash of the images' names below the root, and of their objects, of both splits."""
    digest = hashlib.sha256(repr((data.kind, data.classes)).encode())
    for split in (data.train, data.test):
        for path in split.paths:
            name = path.relative_to(data.root) if path.is_relative_to(data.root) else path
            digest.update(f"{name}\n".encode("utf-8", "surrogateescape"))
        for values in (split.sizes, split.ends, split.boxes, split.labels, split.difficult):
            digest.update(np.ascontiguousarray(values).data)
        if split.outlines is not None:
            digest.update(split.outlines.coordinates.data)
    digest.update(json.dumps(data.truth["annotations"], sort_keys=True).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class DetectionJob:
    """One backbone's detector: what every process needs, before it trains and judges it."""

    data: ObjectData
    data_sha256: str
    detector: DetectorName
    backbone: EvaluatedBackbone
    settings: DetectionSettings
    directory: Path
    resume: bool
    precision: Precision
    processes: int

    @property
    def pixels(self) -> PixelSettings:
        """How the values of images become 8 bits."""
        return pixel_settings(self.backbone.config.data)

    def resolved(self) -> dict[str, Any]:
        """The settings of the results: every value that the figures depend on."""
        defaults, given = DEFAULTS[self.data.kind], self.settings
        iterations = defaults.iterations if given.iterations is None else given.iterations
        rate = PUBLISHED_RATE * given.batch_size / PUBLISHED_BATCH
        sizes = self.sizes()
        return {
            "detector": self.detector,
            "frozen": given.frozen,
            "pyramid_channels": given.channels,
            "iterations": iterations,
            "batch_size": given.batch_size,
            "learning_rate": rate if given.learning_rate is None else given.learning_rate,
            "warmup": min(defaults.warmup, iterations // 10),
            "drops": [round(share * iterations) for share in defaults.drops],
            "training_sizes": list(sizes.training),
            "test_size": sizes.test,
            "longest_side": sizes.longest,
            "precision": self.precision.name,
            **self.pixels.record,
        }

    def sizes(self) -> ImageSizes:
        """The sizes of images in training and test."""
        share = DEFAULTS[self.data.kind].smallest_share
        return ImageSizes.up_to(self.settings.shorter_side, self.settings.longer_side, share)

    def plan(self) -> Plan:
        """The training, which other settings, data, weights or seed do not resume."""
        resolved = self.resolved()
        return Plan(
            iterations=resolved["iterations"],
            learning_rate=resolved["learning_rate"],
            schedule=multistep(resolved["warmup"], resolved["drops"], _DECAY),
            seed=self.settings.seed,
            directory=self.directory,
            save_every=self.settings.save_every,
            settings={
                **resolved,
                "seed": self.settings.seed,
                "data": self.data_sha256,
                "checkpoint": self.backbone.sha256,
                "processes": self.processes,
            },
        )


def check_job(job: DetectionJob) -> None:
    """Raise `UserError` for what would fail only after work has started."""
    check_residual(job.backbone.name, job.backbone.network, "detection")
    check_rgb(job.backbone.name, job.backbone.config.data.band_count, "detection")
    batch = job.settings.batch_size
    if batch > len(job.data.train):
        raise UserError(
            f"--batch-size {batch} is larger than the data ({len(job.data.train)} training images "
            "with objects)"
        )
    if batch % job.processes:
        raise UserError(f"--batch-size {batch} cannot be divided over {job.processes} processes")
    sizes = job.sizes()
    if sizes.test < _SMALLEST:
        raise UserError(f"--min-size {sizes.test} is too small; give at least {_SMALLEST}")
    if sizes.longest < sizes.test:
        raise UserError(
            f"--max-size {sizes.longest} is less than --min-size {sizes.test}: the longer side of "
            "an image cannot be shorter than the other"
        )
    find_progress(job.plan(), job.resume)

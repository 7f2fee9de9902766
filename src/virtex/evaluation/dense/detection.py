"""Detection and instance segmentation: a detector trained on a backbone, and its figures.

Faster R-CNN on a VOC tree and Mask R-CNN on a COCO tree, torchvision's with a feature pyramid, in
place of the detectron2 protocols of the VirTex paper (section 4.2).
"""

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from virtex.data.images import DEFAULT_LIMITS, BadImage, ImageLimits, OnBadImage
from virtex.data.loader import training_batches, validation_batches
from virtex.errors import RunError, UserError, first_few
from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.dense.coco_figures import check_pycocotools, coco_figures, encode_mask
from virtex.evaluation.dense.coco_tree import read_coco_objects
from virtex.evaluation.dense.examples import DetectionExample, Examples, ImageSizes, collate
from virtex.evaluation.dense.networks import PYRAMID_CHANNELS, Detector, check_residual, paste_masks
from virtex.evaluation.dense.objects import ObjectData, drop_unusable_images, with_test
from virtex.evaluation.dense.training import (
    Plan,
    Surroundings,
    find_progress,
    loss_line,
    parameter_groups,
    train,
)
from virtex.evaluation.dense.voc_ap import Detections, voc_figures
from virtex.evaluation.dense.voc_tree import read_voc_objects, voc_directory
from virtex.evaluation.figures import Figure
from virtex.files import write_whole
from virtex.models.modes import evaluating
from virtex.models.sync_batch_norm import synchronise_batch_norm
from virtex.optim.schedules import multistep

DetectorName = Literal["faster-rcnn", "mask-rcnn"]
Found = dict[str, Any]
"""A detection in COCO's form: `image_id`, `category_id`, `bbox`, `score`, maybe `segmentation`."""

DETECTIONS = "detections.json"
PUBLISHED_BATCH, PUBLISHED_RATE = 16, 0.02
_MOMENTUM, _WEIGHT_DECAY, _DECAY = 0.9, 1e-4, 0.1
_TEST_BATCH = 1
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
    precision: Literal["float32", "bfloat16"]
    processes: int

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
            "precision": self.precision,
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


def train_detector(job: DetectionJob, around: Surroundings, say: Callable[[str], None]) -> Detector:
    """The trained detector of a job, on the device; resumes or starts a training."""
    given, world, plan = job.settings, around.world, job.plan()
    state = find_progress(plan, resume=job.resume)
    torch.manual_seed(given.seed)
    detector = Detector(
        copy.deepcopy(job.backbone.module),  # type: ignore[arg-type]
        classes=len(job.data.classes),
        masks=job.detector == "mask-rcnn",
        frozen=given.frozen,
        channels=given.channels,
    )
    if world.size > 1:
        synchronise_batch_norm(detector, world.device)
    detector.to(world.device)
    optimizer = torch.optim.SGD(
        parameter_groups(detector, _WEIGHT_DECAY), lr=plan.learning_rate, momentum=_MOMENTUM
    )
    make = DetectionExample(job.data.train, job.sizes(), True, given.seed, given.limits)
    examples = Examples(len(job.data.train), make, training=True, on_bad_image=given.on_bad_image)

    def batches(first: int) -> Iterator[Mapping[str, Tensor]]:
        for batch, bad in training_batches(
            examples,
            collate,
            batch_size=given.batch_size,
            workers=given.workers,
            seed=given.seed,
            first_iteration=first,
            rank=world.rank,
            world_size=world.size,
            pin_memory=world.device.type == "cuda",
        ):
            for error in bad:
                say(f"{error}; another image takes its place")
            yield batch

    done = train(detector, optimizer, batches, plan, around, state)
    say(loss_line(done.losses))
    return detector


def detect(
    job: DetectionJob, detector: Detector, around: Surroundings, say: Callable[[str], None]
) -> tuple[list[Found], list[int]]:
    """The detections in all test images, and the positions of those that could not be read.

    Each process takes its share; all of them get everything.
    """
    given, world, test = job.settings, around.world, job.data.test
    make = DetectionExample(test, job.sizes(), False, given.seed, given.limits)
    examples = Examples(len(test), make, training=False, on_bad_image=given.on_bad_image)
    batches = validation_batches(
        examples,
        collate,
        batch_size=_TEST_BATCH * world.size,
        workers=given.workers,
        rank=world.rank,
        world_size=world.size,
        pin_memory=world.device.type == "cuda",
    )
    found: list[Found] = []
    unread: list[BadImage] = []
    seen: list[int] = []
    with evaluating(detector):
        for batch, bad in batches:
            around.report(f"detection, image {len(seen)}")
            around.request.check(
                f"stopped by a signal; the detector is saved in {job.directory}, and --resume "
                "judges it"
            )
            unread += bad
            around.advance(len(bad), "")
            if not batch:
                continue
            moved = {name: value.to(world.device) for name, value in batch.items()}
            with around.precision.autocast():
                predictions = detector.detect(moved)
            for row, prediction in enumerate(predictions):
                position = int(batch["position"][row])
                found += _in_coco_form(job, position, prediction, batch["size"][row].tolist())
                seen.append(position)
                around.advance(1, "")
    shares = world.gather((found, seen, [str(error) for error in unread]))
    errors = [error for _, _, share in shares for error in share]
    if errors:
        say(f"{len(errors)} test images cannot be read and do not count: {first_few(errors)}")
    read = {position for _, share, _ in shares for position in share}
    if not read:
        raise RunError(f"none of {len(test)} test images can be read; the first: {errors[0]}")
    # In the order of the images, whatever the number of processes.
    everything = sorted((one for share, _, _ in shares for one in share), key=_image_id)
    return everything, sorted(set(range(len(test))) - read)


def _image_id(found: Found) -> int:
    return int(found["image_id"])


def _in_coco_form(
    job: DetectionJob, position: int, prediction: Mapping[str, Tensor], size: Sequence[int]
) -> list[Found]:
    """The detections of an image, scaled from `size` for the network to the image's own."""
    height, width = job.data.test.sizes[position].tolist()
    factors = torch.tensor([width / size[1], height / size[0]] * 2)
    boxes = prediction["boxes"].float().cpu() * factors
    found: list[Found] = []
    for (x1, y1, x2, y2), label, score in zip(
        boxes.tolist(), prediction["labels"].tolist(), prediction["scores"].tolist(), strict=True
    ):
        found.append(
            {
                "image_id": int(job.data.test.image_ids[position]),
                "category_id": job.data.category_ids[label - 1],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": score,
            }
        )
    if "masks" in prediction:
        masks = prediction["masks"].float().cpu()
        for one, mask, box in zip(found, masks, boxes, strict=True):
            # One at a time: a hundred masks of a large image take gigabytes.
            pixels = paste_masks(mask[None], box[None], (height, width))[0]
            one["segmentation"] = encode_mask(pixels.numpy().astype(np.uint8))
    return found


def judge(
    job: DetectionJob, found: Sequence[Found], unread: Sequence[int]
) -> tuple[list[Figure], list[str]]:
    """The figures of detections, and the lines to print of them."""
    data = job.data
    if unread:
        kept = np.ones(len(data.test), bool)
        kept[list(unread)] = False
        data = with_test(data, data.test.select(kept))
    figures: list[Figure] = []
    lines: list[str] = []
    if data.kind == "voc":
        positions = {identity: row for row, identity in enumerate(data.test.image_ids.tolist())}
        boxes = np.array([one["bbox"] for one in found], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        detections = Detections(
            images=np.array([positions[one["image_id"]] for one in found], np.int64),
            boxes=boxes,
            labels=np.array([one["category_id"] for one in found], np.int64),
            scores=np.array([one["score"] for one in found], np.float64),
        )
        figures, lines = voc_figures(data.test, detections, data.classes)
    of_boxes, summary = coco_figures(data.truth, found, "box")
    figures += of_boxes
    lines += ["boxes:", summary]
    if job.detector == "mask-rcnn":
        of_masks, summary = coco_figures(data.truth, found, "segm")
        figures += of_masks
        lines += ["masks:", summary]
    if not found:
        lines.append("the detector found nothing in any test image")
    settings = {
        **job.resolved(),
        "on_bad_image": job.settings.on_bad_image,
        "test_images": len(data.test),
    }
    return [replace(figure, settings=settings) for figure in figures], lines


def save_detections(job: DetectionJob, found: Sequence[Found]) -> Path:
    """Write detections in COCO's form beside the detector's checkpoints; returns the path."""
    path = job.directory / DETECTIONS
    write_whole(path, json.dumps(list(found), separators=(",", ":")).encode())
    return path

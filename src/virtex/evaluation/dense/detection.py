"""Detection and instance segmentation: a detector trained on a backbone, and its figures.

Faster R-CNN on a VOC tree and Mask R-CNN on a COCO tree, torchvision's with a feature pyramid, in
place of the detectron2 protocols of the VirTex paper (section 4.2).
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from virtex.data.images import BadImage
from virtex.data.loader import training_batches, validation_batches
from virtex.errors import RunError, first_few
from virtex.evaluation.dense.coco_figures import coco_figures, encode_mask
from virtex.evaluation.dense.detection_job import DetectionJob
from virtex.evaluation.dense.examples import DetectionExample, Examples, collate
from virtex.evaluation.dense.networks import Detector, paste_masks
from virtex.evaluation.dense.objects import with_test
from virtex.evaluation.dense.training import (
    Surroundings,
    find_progress,
    loss_line,
    parameter_groups,
    train,
)
from virtex.evaluation.dense.voc_ap import Detections, voc_figures
from virtex.evaluation.figures import Figure
from virtex.files import write_whole
from virtex.models.modes import evaluating
from virtex.models.sync_batch_norm import synchronise_batch_norm

Found = dict[str, Any]
"""A detection in COCO's form: `image_id`, `category_id`, `bbox`, `score`, maybe `segmentation`."""

DETECTIONS = "detections.json"
_MOMENTUM, _WEIGHT_DECAY = 0.9, 1e-4
_TEST_BATCH = 1


def train_detector(job: DetectionJob, around: Surroundings) -> Detector:
    """The trained detector of a job, on the device; resumes or starts a training."""
    given, world, plan = job.settings, around.world, job.plan()
    state = find_progress(plan, resume=job.resume)
    torch.manual_seed(given.seed)
    detector = Detector(
        copy.deepcopy(job.backbone.module),
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
    make = DetectionExample(job.data.train, job.sizes(), True, given.seed, given.limits, job.pixels)
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
                around.progress.note(f"{error}; another image takes its place")
            yield batch

    done = train(detector, optimizer, batches, plan, around, state)
    around.progress.note(loss_line(done.losses))
    return detector


def detect(
    job: DetectionJob, detector: Detector, around: Surroundings
) -> tuple[list[Found], list[int]]:
    """The detections in all test images, and the positions of those that could not be read.

    Each process takes its share; all of them get everything.
    """
    given, world, test = job.settings, around.world, job.data.test
    make = DetectionExample(test, job.sizes(), False, given.seed, given.limits, job.pixels)
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
            around.progress.advance(len(bad))
            if not batch:
                continue
            moved = {name: value.to(world.device) for name, value in batch.items()}
            with around.precision.autocast():
                predictions = detector.detect(moved)
            for row, prediction in enumerate(predictions):
                position = int(batch["position"][row])
                found += _in_coco_form(job, position, prediction, batch["size"][row].tolist())
                seen.append(position)
                around.progress.advance(1)
    shares = world.gather((found, seen, [str(error) for error in unread]))
    errors = [error for _, _, share in shares for error in share]
    if errors:
        around.progress.note(
            f"{len(errors)} test images cannot be read and do not count: {first_few(errors)}"
        )
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

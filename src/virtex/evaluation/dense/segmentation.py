"""Linear segmentation: a batch norm and a 1 x 1 convolution on the frozen features of two stages.

Training images are enlarged at random, cropped and mirrored together with their masks. The test is
on whole images, at the masks' own size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from virtex.build.images import pixel_settings
from virtex.data.dataset import Key
from virtex.data.images import DEFAULT_LIMITS, BadImage, ImageLimits, OnBadImage, read_image
from virtex.data.loader import training_batches, validation_batches
from virtex.data.pixel_sample import pixel_lines
from virtex.data.pixel_values import DEFAULT_PIXELS, PixelSettings
from virtex.data.transforms import resize
from virtex.errors import RunError, UserError, first_few
from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.dense.examples import Examples, scale_for, to_tensor
from virtex.evaluation.dense.mask_data import IGNORED, MaskData, MaskSplit, read_mask
from virtex.evaluation.dense.networks import LastStages, check_residual, check_rgb
from virtex.evaluation.dense.training import (
    Plan,
    Surroundings,
    find_progress,
    loss_line,
    train,
)
from virtex.evaluation.figures import Figure
from virtex.models.modes import evaluating
from virtex.optim.schedules import cosine
from virtex.training.precision import Precision

DEFAULT_ITERATIONS, DEFAULT_BATCH, DEFAULT_RATE = 5000, 16, 1e-3
_WARMUP = 100
_WEIGHT_DECAY = 1e-4
_LARGEST_SCALE = 2.0
_LONGEST = 4
"""The longer side of an image over the shorter one, at most; a longer image is made smaller."""


class PixelClassifier(nn.Module):
    """A linear classifier of the positions of a grid of features, behind a batch norm."""

    loss_names = ("loss",)

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.classify = nn.Conv2d(channels, classes, 1)

    def scores(self, grid: Tensor, size: Sequence[int]) -> Tensor:
        """(B, C, h, w) to scores (B, K, H, W) of the pixels of an image of this size."""
        scores = self.classify(self.norm(grid))
        return F.interpolate(scores, size=tuple(size), mode="bilinear", align_corners=False)

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean cross-entropy over the labelled pixels of `mask` (B, H, W), from `grid`."""
        mask = batch["mask"].long()
        scores = self.scores(batch["grid"], mask.shape[1:]).float()
        total = F.cross_entropy(scores, mask, ignore_index=IGNORED, reduction="sum")
        return {"loss": total / (mask != IGNORED).sum().clamp(min=1)}


@dataclass(frozen=True)
class SegmentationJob:
    """One backbone's classifier: the data, how it is trained, and where that is saved."""

    data: MaskData
    backbone: EvaluatedBackbone
    directory: Path
    resume: bool
    precision: Precision
    iterations: int = DEFAULT_ITERATIONS
    batch_size: int = DEFAULT_BATCH
    learning_rate: float = DEFAULT_RATE
    seed: int = 0
    workers: int = 0
    save_every: int = 1000
    limits: ImageLimits = DEFAULT_LIMITS
    on_bad_image: OnBadImage = "error"

    @property
    def pixels(self) -> PixelSettings:
        """How the values of images become 8 bits."""
        return pixel_settings(self.backbone.config.data)

    def resolved(self) -> dict[str, Any]:
        """The settings of the results: every value that the figures depend on."""
        return {
            "classes": list(self.data.classes),
            "image_size": self.backbone.image_size,
            "iterations": self.iterations,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "weight_decay": _WEIGHT_DECAY,
            "precision": self.precision.name,
            **self.pixels.record,
        }

    def plan(self) -> Plan:
        """The training, which other settings, data, weights or seed do not resume."""
        warmup = min(_WARMUP, self.iterations // 10)
        return Plan(
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            schedule=cosine(warmup, self.iterations),
            seed=self.seed,
            directory=self.directory,
            save_every=self.save_every,
            settings={
                **self.resolved(),
                "seed": self.seed,
                "data": self.data.sha256,
                "checkpoint": self.backbone.sha256,
            },
        )


@dataclass(frozen=True)
class SegmentationExample:
    """Makes the example of an image; in `training` a random crop of `side` pixels.

    There the shorter side is enlarged to one to two times `side`, otherwise it gets that length.
    """

    split: MaskSplit
    side: int
    training: bool
    seed: int
    limits: ImageLimits
    pixels: PixelSettings = DEFAULT_PIXELS

    def __call__(self, key: Key, row: int) -> dict[str, Any]:
        """`image` (H, W, 3) uint8, `mask` (H, W) uint8 (the file's size in the test), `position`.

        Raises `BadImage`.
        """
        image = read_image(self.split.images[row], self.limits, self.pixels)
        path = self.split.masks[row]
        try:
            mask = read_mask(path)
        except (OSError, ValueError, SyntaxError) as error:
            raise BadImage(path, str(error)) from error
        if mask.shape != image.shape[:2]:
            raise BadImage(path, "it has another size than its image")
        rng = np.random.default_rng([self.seed, *key])
        shorter = self.side
        if self.training:
            shorter = round(self.side * rng.uniform(1.0, _LARGEST_SCALE))
        height, width = image.shape[:2]
        scale = scale_for(height, width, shorter, _LONGEST * shorter)
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        image = resize(image, *size)
        if self.training:
            mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
            image, mask = _cropped(image, mask, self.side, rng)
        return {"image": to_tensor(image), "mask": to_tensor(mask), "position": row}


def _cropped(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[Any], side: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """The same random crop of both, mirrored half of the time.

    Of an elongated image, whose shorter side is less than `side`, the missing pixels are black and
    ignored.
    """
    missing = [max(side - length, 0) for length in mask.shape]
    if any(missing):
        image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)))
        padding = ((0, missing[0]), (0, missing[1]))
        mask = np.pad(mask, padding, constant_values=IGNORED)
    top, left = (int(rng.integers(length - side, endpoint=True)) for length in mask.shape)
    part = (slice(top, top + side), slice(left, left + side))
    image, mask = image[part], mask[part]
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return image, mask


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch of images of one size: `image` (B, 3, H, W), `mask` (B, H, W), `position` (B,)."""
    return {
        "image": torch.stack([example["image"] for example in examples]).permute(0, 3, 1, 2),
        "mask": torch.stack([example["mask"] for example in examples]),
        "position": torch.tensor([example["position"] for example in examples]),
    }


def check_job(job: SegmentationJob) -> None:
    """Raise `UserError` for what would fail only after work has started."""
    check_residual(job.backbone.name, job.backbone.network, "linear-segmentation")
    check_rgb(job.backbone.name, job.backbone.config.data.band_count, "linear-segmentation")
    if job.batch_size > len(job.data.train):
        raise UserError(
            f"--batch-size {job.batch_size} is larger than the data ({len(job.data.train)} "
            "training images)"
        )
    find_progress(job.plan(), job.resume)


def train_classifier(
    job: SegmentationJob, stages: LastStages, around: Surroundings
) -> PixelClassifier:
    """The trained classifier, on the device; resumes or starts a training."""
    device = around.world.device
    plan = job.plan()
    state = find_progress(plan, resume=job.resume)
    torch.manual_seed(job.seed)
    head = PixelClassifier(stages.channels, len(job.data.classes)).to(device)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=job.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    side = job.backbone.image_size
    make = SegmentationExample(job.data.train, side, True, job.seed, job.limits, job.pixels)
    for line in pixel_lines(job.data.train.images, job.pixels, job.limits):
        around.progress.note(line)
    examples = Examples(len(job.data.train), make, training=True, on_bad_image=job.on_bad_image)

    def batches(first: int) -> Iterator[Mapping[str, Tensor]]:
        for batch, bad in training_batches(
            examples,
            collate,
            batch_size=job.batch_size,
            workers=job.workers,
            seed=job.seed,
            first_iteration=first,
            pin_memory=device.type == "cuda",
        ):
            for error in bad:
                around.progress.note(f"{error}; another image takes its place")
            with around.precision.autocast():
                grid = stages(batch["image"].to(device, non_blocking=True))
            yield {"grid": grid.float(), "mask": batch["mask"]}

    done = train(head, optimizer, batches, plan, around, state)
    around.progress.note(loss_line(done.losses))
    return head


def confusion_of(
    job: SegmentationJob, head: PixelClassifier, stages: LastStages, around: Surroundings
) -> npt.NDArray[np.int64]:
    """How many labelled test pixels of each class were given to each class, (K, K)."""
    device, classes = around.world.device, len(job.data.classes)
    side = job.backbone.image_size
    make = SegmentationExample(job.data.test, side, False, job.seed, job.limits, job.pixels)
    examples = Examples(len(job.data.test), make, training=False, on_bad_image=job.on_bad_image)
    total = np.zeros((classes, classes), np.int64)
    unread: list[BadImage] = []
    with evaluating(head):
        for batch, bad in validation_batches(examples, collate, batch_size=1, workers=job.workers):
            around.request.check(
                f"stopped by a signal; the classifier is saved in {job.directory}, and --resume "
                "judges it"
            )
            unread += bad
            around.progress.advance(1)
            if not batch:
                continue
            with around.precision.autocast():
                grid = stages(batch["image"].to(device))
            scores = head.scores(grid.float(), batch["mask"].shape[1:])
            predicted = scores.argmax(dim=1).cpu().numpy()
            total += confusion(batch["mask"].numpy(), predicted, classes)
    if unread:
        around.progress.note(
            f"{len(unread)} test images cannot be read and do not count: {first_few(unread)}"
        )
    if not total.any():
        raise RunError("no test image with a labelled pixel could be read")
    return total


def confusion(
    labels: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: int
) -> npt.NDArray[np.int64]:
    """(K, K): the number of pixels by label, where it is not IGNORED, and predicted class."""
    counted = labels != IGNORED
    pairs = labels[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """IoU of each class from a confusion matrix (K, K); NaN if neither labelled nor predicted."""
    right = counts.diagonal().astype(np.float64)
    union = counts.sum(axis=0) + counts.sum(axis=1) - right
    result = np.full(len(counts), np.nan)
    np.divide(right, union, out=result, where=union > 0)
    return result


def segmentation_figures(
    counts: npt.NDArray[np.int64], settings: Mapping[str, object]
) -> list[Figure]:
    """Mean IoU over the classes that are labelled or predicted, and the share of right pixels."""
    ious = intersection_over_union(counts)
    settings = {**settings, "classes_counted": int((~np.isnan(ious)).sum())}
    return [
        Figure("miou", 100 * float(np.nanmean(ious)), settings=settings),
        Figure("pixel_accuracy", 100 * float(counts.trace() / counts.sum()), settings=settings),
    ]

"""Examples of detection: images at their size for the network, with boxes, labels and masks.

An image is resized so that its shorter side has a given length, unless its longer side would exceed
a limit. Masks are drawn from their outlines at that size, with pycocotools' rules.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from virtex.data.dataset import Key
from virtex.data.images import BadImage, ImageLimits, OnBadImage, PixelArray, read_image
from virtex.data.pixel_values import DEFAULT_PIXELS, PixelSettings
from virtex.data.transforms import resize
from virtex.errors import UserError
from virtex.evaluation.dense.coco_figures import polygons_mask
from virtex.evaluation.dense.objects import ObjectSplit

_MOST_BAD_IN_A_ROW = 100
_TRAINING_STEPS = 25
"""Sizes in training are multiples of this part of the largest: of 32 pixels for 800."""


@dataclass(frozen=True)
class ImageSizes:
    """The lengths of the shorter side in training, one of which is drawn, and in the test.

    `longest` limits the longer side. All are in pixels.
    """

    training: tuple[int, ...]
    test: int
    longest: int

    @classmethod
    def up_to(cls, shorter: int, longer: int | None, smallest_share: float) -> "ImageSizes":
        """`shorter` in the test, `smallest_share` of it up to all of it in training.

        The longer side is at most `longer` pixels, by default 5/3 of the shorter one.
        """
        first = round(smallest_share * _TRAINING_STEPS)
        sizes = (
            round(shorter * step / _TRAINING_STEPS) for step in range(first, _TRAINING_STEPS + 1)
        )
        longest = round(shorter * 1333 / 800) if longer is None else longer
        return cls(tuple(dict.fromkeys(sizes)), shorter, longest)


def scale_for(height: int, width: int, shorter: int, longest: int) -> float:
    """The factor by which an image is resized."""
    return min(shorter / min(height, width), longest / max(height, width))


MakeExample = Callable[[Key, int], dict[str, Any]]
"""Maps a key, which decides all that is random, and a position to an example, or `BadImage`."""


class Examples:
    """The examples of `count` images for the loader, made by `make`.

    In `training` a bad image that is skipped is replaced by the next one.
    """

    def __init__(
        self, count: int, make: MakeExample, *, training: bool, on_bad_image: OnBadImage
    ) -> None:
        self._count, self._make = count, make
        self._training, self._on_bad_image = training, on_bad_image

    def __len__(self) -> int:
        return self._count

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """(1,): files count as one shard."""
        return np.array([len(self)])

    def examples(self, keys: Sequence[Key]) -> tuple[list[dict[str, Any]], list[BadImage]]:
        """The examples of the keys, and the errors of images that were skipped."""
        examples: list[dict[str, Any]] = []
        bad: list[BadImage] = []
        for key in keys:
            example = self._readable(key, bad)
            if example is not None:
                examples.append(example)
        return examples, bad

    def _readable(self, key: Key, bad: list[BadImage]) -> dict[str, Any] | None:
        """The example of a key or, in training, of the next image that can be read."""
        attempts = min(_MOST_BAD_IN_A_ROW, len(self)) if self._training else 1
        for step in range(attempts):
            try:
                return self._make(key, (key.position + step) % len(self))
            except BadImage as error:
                if self._on_bad_image == "error":
                    raise
                bad.append(error)
        if not self._training:
            return None
        raise UserError(f"{attempts} images in a row are bad; the last: {bad[-1]}")


@dataclass(frozen=True)
class DetectionExample:
    """Makes the example of an image, with its objects in `training`.

    There, size and mirroring are drawn from (`seed`, epoch, position).
    """

    split: ObjectSplit
    sizes: ImageSizes
    training: bool
    seed: int
    limits: ImageLimits
    pixels: PixelSettings = DEFAULT_PIXELS

    def __call__(self, key: Key, row: int) -> dict[str, Any]:
        """`image` (H, W, 3) uint8 and its `position`, in training also its targets."""
        split = self.split
        image = read_image(split.paths[row], self.limits, self.pixels)
        height, width = image.shape[:2]
        if (height, width) != tuple(split.sizes[row].tolist()):
            raise BadImage(
                split.paths[row],
                f"it has {width} x {height} pixels, but is annotated as "
                f"{split.sizes[row, 1]} x {split.sizes[row, 0]}",
            )
        rng = np.random.default_rng([self.seed, *key])
        shorter = int(rng.choice(self.sizes.training)) if self.training else self.sizes.test
        scale = scale_for(height, width, shorter, self.sizes.longest)
        # At least one pixel, and the exact factors, as both sides are rounded.
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        example: dict[str, Any] = {"image": resize(image, *size), "position": row}
        if self.training:
            mirrored = rng.random() < 0.5
            example |= self._targets(row, size)
            if mirrored:
                example = _mirrored(example)
        return {name: to_tensor(value) for name, value in example.items()}

    def _targets(self, row: int, size: tuple[int, int]) -> dict[str, Any]:
        split = self.split
        objects = split.objects(row)
        factors = np.array(size, np.float32) / split.sizes[row].astype(np.float32)
        targets: dict[str, Any] = {
            "boxes": split.boxes[objects] * factors[[1, 0, 1, 0]],
            "labels": split.labels[objects],
        }
        if split.outlines is not None:
            masks = np.zeros((objects.stop - objects.start, *size), np.uint8)
            for place, index in enumerate(range(objects.start, objects.stop)):
                polygons = [
                    (polygon.reshape(-1, 2) * factors[::-1]).ravel()
                    for polygon in split.outlines[index]
                ]
                masks[place] = polygons_mask(polygons, size)
            targets["masks"] = masks
        return targets


def _mirrored(example: Mapping[str, Any]) -> dict[str, Any]:
    """The mirror image, with its boxes and masks."""
    image: PixelArray = example["image"]
    boxes = example["boxes"]
    mirrored = dict(example)
    mirrored["image"] = image[:, ::-1]
    x1, y1, x2, y2 = boxes.T
    width = np.float32(image.shape[1])
    mirrored["boxes"] = np.stack((width - x2, y1, width - x1, y2), axis=1)
    if "masks" in example:
        mirrored["masks"] = example["masks"][:, :, ::-1]
    return mirrored


def to_tensor(value: Any) -> Any:
    """An array as a tensor of contiguous memory; anything else as it is."""
    return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """A batch of images that are padded on the right and below to one size.

    `image` (B, 3, H, W) uint8, `size` (B, 2) heights and widths without padding, `position` (B,),
    and in training `count` (B,) objects an image, `boxes` (M, 4), `labels` (M,) and perhaps `masks`
    (M, H, W) uint8.
    """
    sizes = torch.tensor([example["image"].shape[:2] for example in examples])
    height, width = sizes.amax(dim=0).tolist()
    images = torch.zeros(len(examples), 3, height, width, dtype=torch.uint8)
    for into, example, (h, w) in zip(images, examples, sizes.tolist(), strict=True):
        into[:, :h, :w] = example["image"].permute(2, 0, 1)
    batch = {
        "image": images,
        "size": sizes,
        "position": torch.tensor([example["position"] for example in examples]),
    }
    if "boxes" in examples[0]:
        batch["count"] = torch.tensor([len(example["boxes"]) for example in examples])
        batch["boxes"] = torch.cat([example["boxes"] for example in examples])
        batch["labels"] = torch.cat([example["labels"] for example in examples])
    if "masks" in examples[0]:
        masks = torch.zeros(len(batch["labels"]), height, width, dtype=torch.uint8)
        start = 0
        for example, (h, w) in zip(examples, sizes.tolist(), strict=True):
            stop = start + len(example["masks"])
            masks[start:stop, :h, :w] = example["masks"]
            start = stop
        batch["masks"] = masks
    return batch

"""Transforms of one uint8 image, RGB or other bands, with OpenCV where speed matters.

Convention: a transform is a frozen value; called with an image and a random generator it returns a
new image and does not change the given one. The semantics are torchvision's. Normalisation happens
on the device, in the backbone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from virtex.data.images import PixelArray
from virtex.errors import UserError

_ATTEMPTS = 10
_MOST_ELONGATED = 64  # enlarging a longer strip of pixels can take gigabytes
_LEVELS = np.arange(256, dtype=np.float32)
_GREY_WEIGHTS = np.array([[0.299, 0.587, 0.114]], np.float32)  # ITU-R BT.601 luma
_IDENTITY = np.arange(256, dtype=np.uint8)


@dataclass(frozen=True)
class Augmented:
    """An image, uint8 (H, W, 3) RGB or (H, W, N) bands; `mirrored` relative to the file's."""

    image: PixelArray
    mirrored: bool = False


class Transform(Protocol):
    """One step, all of whose randomness comes from `rng`."""

    def __call__(self, augmented: Augmented, rng: np.random.Generator) -> Augmented: ...


def apply_transforms(image: PixelArray, steps: Sequence[Transform]) -> PixelArray:
    """The image after transforms that are not random, such as those of validation."""
    unused = np.random.default_rng(0)
    augmented = Augmented(image)
    for step in steps:
        augmented = step(augmented, unused)
    return augmented.image


def resize(image: PixelArray, height: int, width: int) -> PixelArray:
    """Resize bilinearly without the aliasing of plain bilinear shrinking.

    Bilinear interpolation reads 2 x 2 pixels, which is enough to shrink an image to a half; so it
    is halved as often as possible and then brought to size. Below a factor of two this is plain
    bilinear, as in the published training. Against Pillow's antialiased filter, from 480 rows to
    64 … 224, it gives 33 … 36 dB (plain bilinear: 24 … 33), in a quarter of the time that OpenCV's
    area averaging takes.
    """
    while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
        half = (image.shape[1] // 2, image.shape[0] // 2)
        image = with_bands(cv2.resize(image, half, interpolation=cv2.INTER_LINEAR))
    return with_bands(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))


def with_bands(image: PixelArray) -> PixelArray:
    """The image with its axis of bands, which OpenCV drops if there is one."""
    return image if image.ndim == 3 else image[:, :, None]


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to `size` x `size` pixels (Szegedy et al. 2014).

    The part's share of the area is uniform in `scale`, its width over height log-uniform in
    `ratio`. If ten draws do not fit into the image, it is the largest central part with an allowed
    ratio.
    """

    size: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, augmented: Augmented, rng: np.random.Generator) -> Augmented:
        H, W = augmented.image.shape[:2]  # noqa: N806
        top, left, height, width = self._part(H, W, rng)
        part = augmented.image[top : top + height, left : left + width]
        return replace(augmented, image=resize(part, self.size, self.size))

    def _part(self, H: int, W: int, rng: np.random.Generator) -> tuple[int, int, int, int]:  # noqa: N803
        for _ in range(_ATTEMPTS):
            area = H * W * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width = round(math.sqrt(area * ratio))
            height = round(math.sqrt(area / ratio))
            if 0 < width <= W and 0 < height <= H:
                top = int(rng.integers(H - height, endpoint=True))
                left = int(rng.integers(W - width, endpoint=True))
                return top, left, height, width
        ratio = min(max(W / H, self.ratio[0]), self.ratio[1])
        height, width = min(H, round(W / ratio)), min(W, round(H * ratio))
        return (H - height) // 2, (W - width) // 2, height, width


@dataclass(frozen=True)
class HorizontalFlip:
    """The mirror image with probability `p`; `mirrored` is for the caption."""

    p: float = 0.5

    def __call__(self, augmented: Augmented, rng: np.random.Generator) -> Augmented:
        if rng.random() >= self.p:
            return augmented
        return Augmented(with_bands(cv2.flip(augmented.image, 1)), not augmented.mirrored)


def adjust_brightness(image: PixelArray, factor: float) -> PixelArray:
    """Multiply every value by `factor` (≥ 0)."""
    return _apply_table(image, _LEVELS * factor)


def adjust_contrast(image: PixelArray, factor: float) -> PixelArray:
    """Multiply the differences from the image's mean grey by `factor` (≥ 0).

    The grey of other than three bands is their mean.
    """
    if image.shape[2] == 3:
        mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    else:
        mean = float(image.mean())
    return _apply_table(image, mean + factor * (_LEVELS - mean))


def adjust_saturation(image: PixelArray, factor: float) -> PixelArray:
    """Multiply the differences from each pixel's own grey by `factor` (≥ 0)."""
    mix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * _GREY_WEIGHTS
    result: PixelArray = cv2.transform(image, mix)
    return result


def adjust_hue(image: PixelArray, shift: float) -> PixelArray:
    """Turn every hue by `shift` (-0.5 … 0.5) of the colour circle, in steps of 1/256."""
    steps = round(shift * 256)
    if steps == 0:  # the conversion to HSV and back would lose some precision
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned = np.roll(_IDENTITY, -steps)
    hsv = cv2.LUT(hsv, np.stack([turned, _IDENTITY, _IDENTITY], axis=1)[None])
    result: PixelArray = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return result


def _apply_table(image: PixelArray, table: npt.NDArray[np.float32]) -> PixelArray:
    """Replace each value v by `table[v]`, rounded and clipped."""
    return with_bands(cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8)))


@dataclass(frozen=True)
class ColorJitter:
    """With probability `p`, all four adjustments in a random order, each by a random amount.

    Factors are uniform in 1 ± `brightness`, `contrast` or `saturation`, but not below 0; the hue's
    shift is uniform in ± `hue` (at most 0.5). Of other than three bands, only brightness and
    contrast are adjusted.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    p: float = 0.8

    def __call__(self, augmented: Augmented, rng: np.random.Generator) -> Augmented:
        if rng.random() >= self.p:
            return augmented
        changes = [
            partial(adjust_brightness, factor=_factor(self.brightness, rng)),
            partial(adjust_contrast, factor=_factor(self.contrast, rng)),
            partial(adjust_saturation, factor=_factor(self.saturation, rng)),
            partial(adjust_hue, shift=rng.uniform(-self.hue, self.hue)),
        ]
        image = augmented.image
        possible = len(changes) if image.shape[2] == 3 else 2
        for index in rng.permutation(len(changes)):
            if index < possible:
                image = changes[index](image)
        return replace(augmented, image=image)


def _factor(amount: float, rng: np.random.Generator) -> float:
    return rng.uniform(max(0.0, 1 - amount), 1 + amount)


@dataclass(frozen=True)
class SmallestResize:
    """Resizing of the shorter side to `size` pixels, the longer one in proportion.

    Pillow's antialiased bilinear filter is slower than `resize`, and what torchvision's `Resize`
    uses. If the longer side is more than 64 times the shorter one, only its middle is kept.
    """

    size: int

    def __call__(self, augmented: Augmented, rng: np.random.Generator) -> Augmented:  # noqa: ARG002
        sides = augmented.image.shape[:2]
        height, width = (min(side, _MOST_ELONGATED * min(sides)) for side in sides)
        factor = self.size / min(height, width)
        middle = _middle(augmented.image, height, width)
        size = round(width * factor), round(height * factor)
        if middle.shape[2] == 3:
            return replace(augmented, image=_resized_by_pillow(middle, size))
        bands = [_resized_by_pillow(middle[:, :, band], size) for band in range(middle.shape[2])]
        return replace(augmented, image=np.dstack(bands))


@dataclass(frozen=True)
class CenterCrop:
    """The middle `size` x `size` pixels; raises UserError if the image is smaller."""

    size: int

    def __call__(self, augmented: Augmented, rng: np.random.Generator) -> Augmented:  # noqa: ARG002
        height, width = augmented.image.shape[:2]
        if min(height, width) < self.size:
            raise UserError(
                f"center_crop of {self.size} pixels does not fit into {width} x {height} pixels:"
                " put smallest_resize before it"
            )
        part = _middle(augmented.image, self.size, self.size)
        return replace(augmented, image=np.ascontiguousarray(part))


def _resized_by_pillow(image: PixelArray, size: tuple[int, int]) -> PixelArray:
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def _middle(image: PixelArray, height: int, width: int) -> PixelArray:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]

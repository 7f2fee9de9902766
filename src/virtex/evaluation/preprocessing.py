"""Images as backbones get them: read, resized and cropped."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from virtex.data.images import DEFAULT_LIMITS, ImageLimits, ImageSource, read_image
from virtex.data.pixel_values import DEFAULT_PIXELS, PixelSettings
from virtex.data.transforms import CenterCrop, SmallestResize, Transform, apply_transforms


@dataclass(frozen=True)
class Preprocessing:
    """Reads images and applies transforms that are not random."""

    steps: tuple[Transform, ...]
    pixels: PixelSettings = field(default=DEFAULT_PIXELS, repr=False)

    @classmethod
    def resize_and_crop(
        cls, resize: int, crop: int, pixels: PixelSettings = DEFAULT_PIXELS
    ) -> "Preprocessing":
        """Resize the shorter side to `resize` pixels, and take the central square of `crop`."""
        return cls((SmallestResize(resize), CenterCrop(crop)), pixels)

    def __call__(self, source: ImageSource, limits: ImageLimits) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 RGB, or the bands of `pixels`."""
        return apply_transforms(read_image(source, limits, self.pixels), self.steps)


def center_crops(images: Sequence[ImageSource], size: int) -> Tensor:
    """(N, 3, size, size) uint8 RGB: shorter side resized to `size`, then the central square."""
    read = Preprocessing.resize_and_crop(size, size)
    crops = [read(image, DEFAULT_LIMITS) for image in images]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)

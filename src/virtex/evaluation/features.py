"""Pooled features of images from a frozen backbone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from virtex.data.images import ImageSource, read_image
from virtex.data.transforms import Augmented, CenterCrop, SmallestResize

_BATCH = 100


def center_crops(images: Sequence[ImageSource], size: int) -> Tensor:
    """(N, 3, size, size) uint8 RGB: shorter side resized to `size`, then the central square."""
    unused = np.random.default_rng(0)  # these transforms are not random
    resize, crop = SmallestResize(size), CenterCrop(size)
    crops = [crop(resize(Augmented(read_image(i)), unused), unused).image for i in images]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


@torch.inference_mode()
def pooled_features(
    backbone: nn.Module,
    paths: Sequence[Path],
    size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """(N, C) float32: the mean of each image's grid, from a backbone on the CPU.

    Sets the backbone to evaluation mode. `advance` counts images.
    """
    backbone.eval()
    parts = []
    for first in range(0, len(paths), _BATCH):
        images = center_crops(paths[first : first + _BATCH], size)
        parts.append(backbone(images).mean(dim=(2, 3)))
        advance(len(images))
    return torch.cat(parts).float()

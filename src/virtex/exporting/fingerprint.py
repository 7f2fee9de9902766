"""Inputs that a formula gives, and the features of them by which an export is recognised.

`virtex verify`, and anybody else, can compute them again without a file of ours.
"""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

FILE = "fingerprints.safetensors"
TENSOR, IMAGE = "features_of_tensor", "features_of_image"
TOLERANCE = 1e-4
"""The largest relative difference of the features of the tensor, in float32."""
LEAST_COSINE = 0.999
"""The smallest cosine of the features of the image, which the library preprocesses itself."""
FORMULA = (
    "x[b, c, i, j] = sin(0.7 b + 1.3 c + 0.05 i (b + 1)) + 0.5 cos(0.03 j - 0.4 c), for two images"
)
_HEIGHT, _WIDTH = 300, 400


def formula_tensor(bands: int, side: int) -> Tensor:
    """Normalised images (2, bands, side, side) float32, by `FORMULA`."""
    b, c, i, j = np.meshgrid(
        np.arange(2), np.arange(bands), np.arange(side), np.arange(side), indexing="ij"
    )
    values = np.sin(0.7 * b + 1.3 * c + 0.05 * i * (b + 1)) + 0.5 * np.cos(0.03 * j - 0.4 * c)
    return torch.from_numpy(values.astype(np.float32))


def formula_image() -> Image.Image:
    """An RGB image of 300 x 400 pixels: two gradients, waves and a dark rectangle."""
    i, j = np.mgrid[:_HEIGHT, :_WIDTH]
    waves = 127.5 + 100 * np.sin(i / 17) * np.cos(j / 23)
    bands = (255 * i / (_HEIGHT - 1), 255 * j / (_WIDTH - 1), waves)
    pixels: npt.NDArray[np.uint8] = np.stack(bands, axis=2).round().astype(np.uint8)
    pixels[180:260, 60:170] = (20, 40, 30)
    return Image.fromarray(pixels)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest feature."""
    return float((found - expected).abs().max() / expected.abs().max())


def cosine(found: Tensor, expected: Tensor) -> float:
    """The cosine of the angle between two vectors of features (1, C)."""
    return float(torch.nn.functional.cosine_similarity(found, expected).min())

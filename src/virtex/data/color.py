"""The four changes of a picture's colours that colour jitter is made of.

Pictures are uint8 (H, W, 3) RGB; results are rounded and clipped to 0 … 255.
"""

import cv2
import numpy as np
import numpy.typing as npt

from virtex.data.images import PixelArray

_LEVELS = np.arange(256, dtype=np.float32)
_GREY_WEIGHTS = np.array([[0.299, 0.587, 0.114]], np.float32)  # ITU-R BT.601 luma
_SAME = np.arange(256, dtype=np.uint8)


def adjust_brightness(image: PixelArray, factor: float) -> PixelArray:
    """Every value times `factor` (≥ 0)."""
    return _looked_up(image, _LEVELS * factor)


def adjust_contrast(image: PixelArray, factor: float) -> PixelArray:
    """Distances from the picture's mean grey times `factor` (≥ 0)."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return _looked_up(image, mean + factor * (_LEVELS - mean))


def adjust_saturation(image: PixelArray, factor: float) -> PixelArray:
    """Distances from each pixel's own grey times `factor` (≥ 0)."""
    mix = factor * np.eye(3, dtype=np.float32) + (1 - factor) * _GREY_WEIGHTS
    result: PixelArray = cv2.transform(image, mix)
    return result


def adjust_hue(image: PixelArray, shift: float) -> PixelArray:
    """Every hue turned by `shift` (-0.5 … 0.5) of the colour circle, in steps of 1/256."""
    steps = round(shift * 256)
    if steps == 0:  # the way through HSV would cost some precision for nothing
        return image
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned = np.roll(_SAME, -steps)
    hsv = cv2.LUT(hsv, np.stack([turned, _SAME, _SAME], axis=1)[None])
    result: PixelArray = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)
    return result


def _looked_up(image: PixelArray, table: npt.NDArray[np.float32]) -> PixelArray:
    """Each value v replaced by `table[v]`, rounded and clipped."""
    result: PixelArray = cv2.LUT(image, np.clip(np.rint(table), 0, 255).astype(np.uint8))
    return result

"""Rendering of scenes.

Shapes are filled at SUPERSAMPLES times the resolution and averaged with integers, so that edges are
smooth and no machine rounds differently.
"""

import functools
import io
from random import Random

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from virtex.synthetic.outlines import Point
from virtex.synthetic.palette import shade
from virtex.synthetic.scenes import Background, Object, Scene
from virtex.synthetic.textures import texture_polygons

SUPERSAMPLES = 4
JPEG_QUALITY = 92
_FRACTION_BITS = 8
_CLOUDS = 4  # the background's brightness is drawn on a grid of 4 × 4
_CLOUD_CONTRAST = 14  # largest change of brightness by a cloud, in 1/255

Pixels = npt.NDArray[np.uint8]
_Integers = npt.NDArray[np.int32]


def draw(scene: Scene, side: int) -> Pixels:
    """Render a scene: uint8 (side, side, 3), RGB."""
    canvas = _draw_background(scene.background, side)
    for item in scene.objects:
        _draw_object(canvas, item)
    return canvas.astype(np.uint8)


def encode_jpeg(pixels: Pixels) -> bytes:
    """Encode (H, W, 3) RGB pixels as a JPEG file, with colours at full resolution."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()


def _draw_background(background: Background, side: int) -> _Integers:
    noise = np.frombuffer(Random(background.cloud_seed).randbytes(_CLOUDS**2), np.uint8)
    clouds = cv2.resize(
        noise.reshape(_CLOUDS, _CLOUDS), (side, side), interpolation=cv2.INTER_LINEAR_EXACT
    ).astype(np.int32)
    lift = (clouds - 128) * _CLOUD_CONTRAST // 128
    canvas: _Integers = np.array(background.rgb, np.int32) + lift[..., None]
    return canvas.clip(0, 255)


def _draw_object(canvas: _Integers, item: Object) -> None:
    """Blend one object into the canvas, which is changed in place."""
    fine = canvas.shape[0] * SUPERSAMPLES
    inside = _filled([item.polygon], fine)
    textured = inside & _filled(texture_polygons(item), fine)
    covered, shaded = _cover(inside)[..., None], _cover(textured)[..., None]
    full = SUPERSAMPLES**2
    plain, second = np.array(item.rgb, np.int32), np.array(shade(item.rgb), np.int32)
    blend = canvas * (full - covered) + plain * (covered - shaded) + second * shaded
    canvas[:] = (blend + full // 2) // full


def _filled(polygons: list[tuple[Point, ...]], fine: int) -> Pixels:
    """1 inside the polygons of the unit square, else 0: uint8 (fine, fine)."""
    mask = np.zeros((fine, fine), np.uint8)
    for polygon in polygons:
        # In OpenCV the centre of a pixel has integer coordinates, hence the half.
        corners = np.rint((np.array(polygon) * fine - 0.5) * 2**_FRACTION_BITS).astype(np.int32)
        cv2.fillPoly(mask, [corners], 1, shift=_FRACTION_BITS)
    return mask


def _cover(mask: Pixels) -> _Integers:
    """The number of a pixel's SUPERSAMPLES² samples that are 1: int32 (side, side)."""
    rows = functools.reduce(np.add, (mask[start::SUPERSAMPLES] for start in range(SUPERSAMPLES)))
    counts = functools.reduce(
        np.add, (rows[:, start::SUPERSAMPLES] for start in range(SUPERSAMPLES))
    )
    return counts.astype(np.int32)

"""The values of images that Pillow decodes, and of PNG files of 16-bit colour.

Pillow reduces colour to 8 bits, so OpenCV reads the latter, once Pillow has found them whole.
"""

import struct
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from virtex.data.pixel_values import Raster, bits_range

_PNG = b"\x89PNG\r\n\x1a\n"
_RGB_PNG, _GREY_ALPHA_PNG, _RGBA_PNG = 2, 4, 6
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLES, _EXTRA_SAMPLES = 258, 262, 277, 338  # of TIFF
_WHITE_IS_ZERO = 0
_NATIVE = ("L", "LA", "RGB", "RGBA")
"""Modes whose bands are those of the file."""

UNNAMED_BAND = (
    "have more than three bands and none declared as alpha; the first three are used as RGB "
    "(DATA.BANDS chooses others)"
)
SEVERAL_PAGES = "have several pages, of which the first is used"


def pillow_raster(image: Image.Image, data: bytes = b"", *, every_band: bool = False) -> Raster:
    """The values of an image; `data` is its file, for what Pillow does not tell.

    With `every_band`, alpha is a band as others, otherwise transparent parts are put on white.
    """
    image.load()
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        return _sixteen_bits(image, data)
    if image.mode in ("I", "F"):
        values = np.asarray(image)[:, :, None]
        return Raster(values, None, inverted=_is_inverted(image), notes=_pages(image, data))
    if data.startswith(_PNG) and data[24] == 16:
        return _png_of_sixteen_bits(image, data, every_band=every_band)
    return _eight_bits(image, every_band=every_band)


def _eight_bits(image: Image.Image, *, every_band: bool) -> Raster:
    if every_band:
        values = np.array(image if image.mode in _NATIVE else image.convert("RGB"))
        return Raster(values.reshape(*values.shape[:2], -1))
    tags = _tags(image)
    if image.mode in ("RGB", "RGBA") and tags.get(_SAMPLES, 3) > 3 and _has_no_alpha(tags):
        return Raster(np.array(image)[:, :, :3], notes=(UNNAMED_BAND,))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return Raster(np.array(image.convert("RGB")))


def _has_no_alpha(tags: Mapping[int, Any]) -> bool:
    """Whether a TIFF file with more bands than its colours declares none of them as alpha."""
    return _PHOTOMETRIC in tags and not {1, 2} & set(tags.get(_EXTRA_SAMPLES, ()))


def _sixteen_bits(image: Image.Image, data: bytes) -> Raster:
    """Grey of 16 bits, or of the bits that a TIFF file declares."""
    values = np.asarray(image).astype(np.uint16)
    (bits,) = _tags(image).get(_BITS_PER_SAMPLE, (16,))
    alpha = None
    if (transparent := image.info.get("transparency")) is not None:
        alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Raster(
        values[:, :, None],
        bits_range(bits),
        alpha,
        inverted=_is_inverted(image),
        significant=significant_bits(data),
        notes=_pages(image, data),
    )


def _png_of_sixteen_bits(image: Image.Image, data: bytes, *, every_band: bool) -> Raster:
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    kind = data[25]
    if read is None or read.dtype != np.uint16 or read.shape[:2] != image.size[::-1]:
        raise ValueError("OpenCV cannot decode this PNG file of 16-bit colour")
    values: npt.NDArray[np.uint16] = read[:, :, [2, 1, 0]]
    alpha = None
    if kind in (_GREY_ALPHA_PNG, _RGBA_PNG):
        alpha = read[:, :, 3]
    elif (transparent := image.info.get("transparency")) is not None:
        hidden = (values == np.array(transparent, np.uint16)).all(axis=2)
        alpha = np.where(hidden, 0, 65535).astype(np.uint16)
    if kind == _GREY_ALPHA_PNG:
        values = values[:, :, :1]
    significant = significant_bits(data)
    if alpha is None or (every_band and kind == _RGB_PNG):
        return Raster(values, bits_range(16), significant=significant)
    if every_band:
        return Raster(np.dstack((values, alpha)), bits_range(16), significant=significant)
    return Raster(values, bits_range(16), (alpha >> 8).astype(np.uint8), significant=significant)


def significant_bits(data: bytes) -> int:
    """The largest number of bits in the sBIT chunk of a PNG file; 0 if there is none."""
    place = len(_PNG)
    while data.startswith(_PNG) and place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"sBIT":
            return max(data[place + 8 : place + 8 + length], default=0)
        if kind in (b"PLTE", b"IDAT"):  # which must follow it
            break
        place += length + 12
    return 0


def _pages(image: Image.Image, data: bytes) -> tuple[str, ...]:
    """A note if a TIFF file has a second page, which is not looked at."""
    endian = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if image.format != "TIFF" or endian is None:
        return ()
    try:
        (start,) = struct.unpack_from(endian + "I", data, 4)
        (entries,) = struct.unpack_from(endian + "H", data, start)
        (following,) = struct.unpack_from(endian + "I", data, start + 2 + 12 * entries)
    except struct.error:
        return ()
    return (SEVERAL_PAGES,) if following else ()


def _is_inverted(image: Image.Image) -> bool:
    """Whether zero is white; of 8-bit images Pillow inverts these itself."""
    return bool(_tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return getattr(image, "tag_v2", {})

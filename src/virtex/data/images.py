"""Image files to uint8 RGB arrays: whole and upright, or an error; never a partly grey picture."""

import io
import struct
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from virtex.data.exif import jpeg_exif, orientation, upright
from virtex.errors import UserError

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow decodes the same pixels, more slowly
    simplejpeg = None

OnBadImage = Literal["error", "skip"]
PixelArray = npt.NDArray[np.uint8]

_JPEG_START = b"\xff\xd8\xff"
_MAX_PIXELS = 178_956_970  # Pillow's own bound against files that unpack to gigabytes
# Not all that Pillow can open: a PostScript file from the web would be executed.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
# What Pillow's readers are known to raise on damaged data.
_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


class BadImage(UserError):
    """A file that gives no picture, with `path` and `reason`."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read the image {self.path}: {self.reason}"


def read_image(path: Path) -> PixelArray:
    """The picture in a file, (H, W, 3) RGB, contiguous.

    It is upright by its Exif orientation. Transparent parts lie on white, which most transparent
    pictures on the web were drawn for; 16-bit grey is scaled to 8 bits; of an animation it is the
    first frame.

    Raises BadImage when the file is missing, empty, truncated, damaged or no image.
    """
    data = _content(path)
    try:
        return decode(data, simplejpeg)
    except UnidentifiedImageError as error:
        raise BadImage(path, f"it is no image, or none of {', '.join(_FORMATS)}") from error
    except _DAMAGE as error:
        raise BadImage(path, str(error)) from error


def from_pillow(image: Image.Image) -> PixelArray:
    """A picture of Pillow's as `read_image` would give it, (H, W, 3) RGB.

    Raises ValueError for 32-bit pixels of unknown range.
    """
    # Pillow itself turns TIFF.
    exif = b"" if image.format == "TIFF" else image.info.get("exif", b"")
    return upright(_rgb(image), orientation(exif))


def _content(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(path, error.strerror or str(error)) from error
    if not data:
        raise BadImage(path, "the file is empty")
    return data


def decode(data: bytes, jpeg_decoder: ModuleType | None) -> PixelArray:
    """The picture in a file's bytes; `jpeg_decoder` is simplejpeg, or None for Pillow alone.

    Pillow alone cannot tell a JPEG whose data end too early but in order from a grey picture.
    """
    if not data.startswith(_JPEG_START):
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            return from_pillow(image)
    turned = orientation(jpeg_exif(data))
    if jpeg_decoder is not None and _is_plain_jpeg(data, jpeg_decoder):
        return upright(jpeg_decoder.decode_jpeg(data, strict=True), turned)
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        return upright(_rgb(image), turned)


def _is_plain_jpeg(data: bytes, jpeg_decoder: ModuleType) -> bool:
    """Whether simplejpeg is as good as Pillow: not for four inks, rare samplings, bad headers."""
    try:
        height, width, colorspace, _ = jpeg_decoder.decode_jpeg_header(data)
    except ValueError:
        return False
    return colorspace in ("RGB", "YCbCr", "Gray") and height * width <= _MAX_PIXELS


def _rgb(image: Image.Image) -> PixelArray:
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels are 32-bit numbers of unknown range; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.array(Image.alpha_composite(white, image).convert("RGB"))
    return np.array(image.convert("RGB"))

"""Image files to uint8 RGB arrays: whole and upright, or an error; never a partly grey picture."""

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

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
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
# Pillow gives PostScript to Ghostscript, which executes it, and opens whatever an IPTC file holds,
# PostScript too. Of the others it knows the header alone.
_NOT_READ = ("EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
# What Pillow's readers are known to raise on damaged data.
_DAMAGE = (
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OSError,
    EOFError,
    MemoryError,
    SyntaxError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF


class BadImage(UserError):
    """A file that gives no picture: its path, or where in a larger file it is, and the reason."""

    def __init__(self, picture: Path | str, reason: str) -> None:
        super().__init__(picture, reason)
        self.picture = picture
        self.reason = reason

    @property
    def path(self) -> Path:
        """The file's path, where it is a file of its own."""
        return Path(self.picture)

    def __str__(self) -> str:
        return f"cannot read the image {self.picture}: {self.reason}"


class InLargerFile(Protocol):
    """An image file inside of another file; as text it is where to find it."""

    def content(self) -> bytes:
        """Its bytes; raises BadImage where they are damaged."""
        ...


Picture = Path | InLargerFile
"""Where the bytes of an image file are."""


def read_image(picture: Picture) -> PixelArray:
    """The picture in a file of any format that Pillow opens by itself, (H, W, 3) RGB, contiguous.

    It is upright by its Exif orientation. Transparent parts lie on white, which most transparent
    pictures on the web were drawn for; 16-bit grey is scaled to 8 bits; of an animation it is the
    first frame.

    Raises BadImage when the file is missing, empty, truncated, damaged or no image.
    """
    return read_content(content(picture), picture)


def read_content(data: bytes, picture: Picture) -> PixelArray:
    """As `read_image`, of a file that was read already; errors name `picture`."""
    try:
        return decode(data, simplejpeg)
    except UnidentifiedImageError as error:
        reason = "it is no image, or of a format that is not read"
        raise BadImage(_named(picture), reason) from error
    except _DAMAGE as error:
        reason = str(error) or f"it is damaged ({type(error).__name__})"
        raise BadImage(_named(picture), reason) from error


def from_pillow(image: Image.Image) -> PixelArray:
    """A picture of Pillow's as `read_image` would give it, (H, W, 3) RGB.

    Raises ValueError for 32-bit pixels of unknown range.
    """
    # Pillow itself turns TIFF.
    exif = b"" if image.format == "TIFF" else image.info.get("exif", b"")
    return upright(_rgb(image), orientation(exif))


def content(picture: Picture) -> bytes:
    """The bytes of an image file; raises BadImage where there are none."""
    try:
        data = picture.read_bytes() if isinstance(picture, Path) else picture.content()
    except OSError as error:
        raise BadImage(_named(picture), error.strerror or str(error)) from error
    if not data:
        raise BadImage(_named(picture), "the file is empty")
    return data


def _named(picture: Picture) -> Path | str:
    return picture if isinstance(picture, Path) else str(picture)


def decode(data: bytes, jpeg_decoder: ModuleType | None) -> PixelArray:
    """The picture in a file's bytes; `jpeg_decoder` is simplejpeg, or None for Pillow alone.

    Pillow alone cannot tell a JPEG whose data end too early but in order from a grey picture.
    """
    if not data.startswith(_JPEG_START):
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            return from_pillow(image)
    turned = orientation(jpeg_exif(data))
    if jpeg_decoder is not None and _is_plain_jpeg(data, jpeg_decoder):
        return upright(jpeg_decoder.decode_jpeg(data, strict=True), turned)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return upright(_rgb(image), turned)


def _formats() -> tuple[str, ...]:
    """Names of the formats that are read, the common ones first."""
    Image.init()  # imports all of Pillow's readers, the first time
    others = (name for name in Image.ID if name not in (*_COMMON, *_NOT_READ))
    return (*(name for name in _COMMON if name in Image.ID), *others)


def _is_plain_jpeg(data: bytes, jpeg_decoder: ModuleType) -> bool:
    """Whether simplejpeg is as good as Pillow: not for four inks, rare samplings, bad headers."""
    try:
        height, width, colorspace, _ = jpeg_decoder.decode_jpeg_header(data)
    except ValueError:
        return False
    return colorspace in ("RGB", "YCbCr", "Gray") and height * width <= _MAX_PIXELS


def _rgb(image: Image.Image) -> PixelArray:
    image.load()
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PPM"):
        return np.repeat(_eight_bits(image)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(
            "its pixels are 32-bit or signed numbers of unknown range; save it with 8 or 16 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.array(Image.alpha_composite(white, image).convert("RGB"))
    return np.array(image.convert("RGB"))


def _eight_bits(image: Image.Image) -> PixelArray:
    """(H, W) of grey with 16 bits, or with as many as a TIFF file says."""
    values = np.asarray(image)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    (bits,) = tags.get(_BITS_PER_SAMPLE, (16,))
    grey: PixelArray = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns these round in 8 bits only
        grey = 255 - grey
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return grey

"""Decoding of image files to uint8 RGB arrays: complete and upright, or an error."""

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from virtex.data import jpeg_parts
from virtex.data.exif import orientation, upright
from virtex.errors import UserError

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow decodes the same pixels, more slowly
    simplejpeg = None

OnBadImage = Literal["error", "skip"]
PixelArray = npt.NDArray[np.uint8]

IMAGE_EXTENSIONS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("jp2", "ppm", "pgm", "avif"),
    )
)
"""Extensions of image files in lower case, for where only the name is known."""

_JPEG_START = b"\xff\xd8\xff"
_COMMON = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
# Pillow passes PostScript to Ghostscript, which executes it, and opens whatever an IPTC file holds,
# PostScript included. Of the other formats it reads only the header.
_NOT_READ = ("EPS", "IPTC", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
# What Pillow's readers raise for damaged data.
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


@dataclass(frozen=True)
class ImageLimits:
    """The largest file and the largest image that are read, and the settings that messages name."""

    pixels: int = 178_956_970  # Pillow's default
    file_bytes: int = 256 << 20
    pixels_setting: str = "DATA.MAX_PIXELS"
    bytes_setting: str = "DATA.MAX_IMAGE_MB"


DEFAULT_LIMITS = ImageLimits()


def named_limits(
    pixels: int | None, megabytes: int | None, *, settings: tuple[str, str]
) -> ImageLimits:
    """The limits, with the default for None; `settings` are the names that messages give them."""
    return ImageLimits(
        DEFAULT_LIMITS.pixels if pixels is None else pixels,
        DEFAULT_LIMITS.file_bytes if megabytes is None else megabytes << 20,
        *settings,
    )


class EmbeddedImage(Protocol):
    """An image file inside another file; its string names both."""

    def content(self) -> bytes:
        """Read the bytes of the image file; raises BadImage if they are damaged."""
        ...


ImageSource = Path | EmbeddedImage
"""Where the bytes of an image file are."""


class BadImage(UserError):
    """An image file that cannot be read, and the reason.

    `picture` is its path, or the string of an embedded image.
    """

    def __init__(self, source: ImageSource | str, reason: str) -> None:
        self.picture = source if isinstance(source, Path) else str(source)
        self.reason = reason
        super().__init__(self.picture, reason)

    @property
    def path(self) -> Path:
        """The path of a file that is not embedded."""
        return Path(self.picture)

    def __str__(self) -> str:
        return f"cannot read the image {self.picture}: {self.reason}"


def read_image(source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS) -> PixelArray:
    """Read an image in any format that Pillow decodes by itself, (H, W, 3) RGB, contiguous.

    The image is turned upright by its Exif orientation. Transparent images are put on white, for
    which most of them on the web were drawn; 16-bit grey is scaled to 8 bits; an animation gives
    its first frame.

    Raises BadImage if the file is missing, empty, truncated, damaged, not an image, or beyond
    `limits`.
    """
    return decode_image(read_bytes(source, limits), source, limits)


def decode_image(
    data: bytes, source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS
) -> PixelArray:
    """Decode the bytes of a file as `read_image` does; errors name `source`."""
    try:
        return decode(data, simplejpeg, limits)
    except UnidentifiedImageError as error:
        raise BadImage(source, _unidentified(data)) from error
    except _DAMAGE as error:
        reason = str(error) or f"it is damaged ({type(error).__name__})"
        raise BadImage(source, reason) from error


def from_pillow(image: Image.Image) -> PixelArray:
    """Convert an image of Pillow's as `read_image` does, to (H, W, 3) RGB.

    Raises ValueError for 32-bit pixels of unknown range.
    """
    return upright(_rgb(image), _stored_orientation(image))


def upright_size(path: Path) -> tuple[int, int]:
    """The height and width in pixels that `read_image` gives, from a file's header.

    Raises the errors of `PIL.Image.open`.
    """
    with Image.open(path) as image:
        width, height = image.size
        return (width, height) if _stored_orientation(image) >= 5 else (height, width)


def _stored_orientation(image: Image.Image) -> int:
    # Pillow itself applies the orientation of TIFF.
    return orientation(b"" if image.format == "TIFF" else image.info.get("exif", b""))


def read_bytes(source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """Read the bytes of an image file; raises BadImage if there are none, or too many."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                data = file.read(limits.file_bytes + 1)
        else:
            data = source.content()
    except OSError as error:
        raise BadImage(source, error.strerror or str(error)) from error
    if not data:
        raise BadImage(source, "the file is empty")
    if len(data) > limits.file_bytes:
        reason = f"the file is larger than {limits.bytes_setting}, {limits.file_bytes >> 20} MB"
        raise BadImage(source, reason)
    return data


def _unidentified(data: bytes) -> str:
    if data.startswith(_JPEG_START):
        return f"it is a damaged or unsupported JPEG file ({jpeg_parts.kind(data)})"
    return "it is not an image, or its format is not supported"


def decode(
    data: bytes, jpeg_decoder: ModuleType | None, limits: ImageLimits = DEFAULT_LIMITS
) -> PixelArray:
    """Decode the bytes of a file; `jpeg_decoder` is simplejpeg, or None for Pillow alone.

    Pixels and errors are the same with both: data for which simplejpeg has even a warning are
    decoded and judged by Pillow.

    Raises UnidentifiedImageError, one of `_DAMAGE`, and ValueError above `limits.pixels`.
    """
    if not data.startswith(_JPEG_START):
        with _opened(data, _formats(), limits) as image:
            return from_pillow(image)
    jpeg_parts.check_scans(data, limits.pixels)
    turned = orientation(jpeg_parts.exif(data))
    if jpeg_decoder is not None and _is_plain_jpeg(data, jpeg_decoder, limits.pixels):
        with suppress(ValueError):
            return upright(jpeg_decoder.decode_jpeg(data, strict=True), turned)
    return upright(_jpeg_by_pillow(data, limits), turned)


def _jpeg_by_pillow(data: bytes, limits: ImageLimits) -> PixelArray:
    """Decode by Pillow, which alone notices truncated data only if nothing follows them."""
    data = jpeg_parts.without_metadata(data)
    with _opened(data, ("JPEG",), limits) as image:
        pixels = _rgb(image)
        decoded = _digest(image)
    del image  # frees its memory, as the probe needs as much
    probe = jpeg_parts.probe(data)
    if probe is not None:
        with _opened(probe, ("JPEG",), limits) as probed:
            if _digest(probed) != decoded:
                raise ValueError("premature end of its data: it is truncated or damaged")
    if jpeg_parts.lost_restart(data):
        raise ValueError("a restart marker is missing, and data with it: it is damaged")
    return pixels


def _digest(image: Image.Image) -> bytes:
    return hashlib.blake2b(image.tobytes()).digest()


def _opened(data: bytes, formats: tuple[str, ...], limits: ImageLimits) -> Image.Image:
    """Open an image without decoding it; raises ValueError above `limits.pixels`."""
    if Image.MAX_IMAGE_PIXELS is not None and limits.pixels > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow refuses images above twice this limit, which holds for the whole process.
        Image.MAX_IMAGE_PIXELS = (limits.pixels + 1) // 2
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        (size,) = re.findall(r"\((\d+ pixels)\)", str(error)) or ["pixels"]
        raise ValueError(_too_large(size, limits)) from error
    width, height = image.size
    if width * height > limits.pixels:
        raise ValueError(_too_large(f"{width} x {height} pixels", limits))
    return image


def _too_large(size: str, limits: ImageLimits) -> str:
    return f"its {size} are more than {limits.pixels_setting}, {limits.pixels}"


def _formats() -> tuple[str, ...]:
    """The names of the supported formats, the common ones first."""
    Image.init()  # imports all of Pillow's readers the first time
    others = (name for name in Image.ID if name not in (*_COMMON, *_NOT_READ))
    return (*(name for name in _COMMON if name in Image.ID), *others)


def _is_plain_jpeg(data: bytes, jpeg_decoder: ModuleType, max_pixels: int) -> bool:
    """Whether simplejpeg decodes a file as Pillow does.

    It does not for CMYK, rare samplings and bad headers, nor above `max_pixels`, which
    `_jpeg_by_pillow` refuses.
    """
    try:
        height, width, colorspace, _ = jpeg_decoder.decode_jpeg_header(data)
    except ValueError:
        return False
    return colorspace in ("RGB", "YCbCr", "Gray") and height * width <= max_pixels


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
    """Scale grey of 16 bits, or of the bits that a TIFF file states, to 8: (H, W)."""
    values = np.asarray(image)
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    (bits,) = tags.get(_BITS_PER_SAMPLE, (16,))
    grey: PixelArray = (values >> (bits - 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts only 8-bit images
        grey = 255 - grey
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return grey

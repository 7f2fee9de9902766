"""Decoding of image files to uint8 arrays: complete and upright, or an error."""

import hashlib
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

import cv2
from PIL import Image, UnidentifiedImageError

from virtex.data import dicom_images, jpeg_parts, tiff_images
from virtex.data.exif import orientation, upright
from virtex.data.image_limits import DEFAULT_LIMITS as DEFAULT_LIMITS
from virtex.data.image_limits import ImageLimits as ImageLimits
from virtex.data.image_limits import check_size, opened_within
from virtex.data.image_limits import named_limits as named_limits
from virtex.data.pillow_images import pillow_raster
from virtex.data.pixel_values import (
    DEFAULT_PIXELS,
    MissingPackageError,
    PixelSettings,
    Raster,
    chosen_bands,
    to_eight_bits,
)
from virtex.data.pixel_values import PixelArray as PixelArray
from virtex.errors import UserError

try:
    import simplejpeg
except ImportError:  # no wheel for this machine: Pillow decodes the same pixels, more slowly
    simplejpeg = None

OnBadImage = Literal["error", "skip"]

IMAGE_EXTENSIONS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("jp2", "ppm", "pgm", "avif", "dcm"),
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
    cv2.error,
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


def read_image(
    source: ImageSource,
    limits: ImageLimits = DEFAULT_LIMITS,
    pixels: PixelSettings = DEFAULT_PIXELS,
) -> PixelArray:
    """Read an image of any supported format, (H, W, 3) RGB, or (H, W, N) with N chosen bands.

    Supported are the formats that Pillow decodes by itself, TIFF with bands of any type, and DICOM.
    The image is turned upright by its Exif orientation. Transparent images are put on white, for
    which most of them on the web were drawn; `pixels` says how other values than those of 8 bits
    become 8 bits; an animation gives its first frame.

    Raises BadImage if the file is missing, empty, truncated, damaged, not an image, beyond
    `limits`, or without the range or the bands of `pixels`; `UserError` if it needs a package that
    is not installed.
    """
    return decode_image(read_bytes(source, limits), source, limits, pixels)


def decode_image(
    data: bytes,
    source: ImageSource,
    limits: ImageLimits = DEFAULT_LIMITS,
    pixels: PixelSettings = DEFAULT_PIXELS,
) -> PixelArray:
    """Decode the bytes of a file as `read_image` does; errors name `source`."""
    with _named_errors(data, source):
        return decode(data, simplejpeg, limits, pixels)


def decode_raster(
    data: bytes,
    source: ImageSource,
    limits: ImageLimits = DEFAULT_LIMITS,
    pixels: PixelSettings = DEFAULT_PIXELS,
) -> Raster:
    """The values of a file as they are stored, not upright; errors as of `read_image`."""
    with _named_errors(data, source):
        if is_jpeg(data):
            return Raster(decode(data, simplejpeg, limits))
        return _raster(data, limits, pixels)[0]


@contextmanager
def _named_errors(data: bytes, source: ImageSource) -> Iterator[None]:
    """Name `source` in errors of the file `data`."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise BadImage(source, _unidentified(data)) from error
    except MissingPackageError as error:
        raise UserError(f"cannot read the image {source}: {error}") from error
    except _DAMAGE as error:
        reason = str(error) or f"it is damaged ({type(error).__name__})"
        raise BadImage(source, reason) from error


def from_pillow(image: Image.Image, pixels: PixelSettings = DEFAULT_PIXELS) -> PixelArray:
    """Convert an image of Pillow's as `read_image` does.

    Raises ValueError for pixels of unknown range, and for bands that it does not have.
    """
    raster = pillow_raster(image, every_band=pixels.bands is not None)
    return upright(to_eight_bits(raster, pixels), _stored_orientation(image))


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


def is_jpeg(data: bytes) -> bool:
    """Whether a file begins as JPEG, whose values have 8 bits."""
    return data.startswith(_JPEG_START)


def _unidentified(data: bytes) -> str:
    if data.startswith(_JPEG_START):
        return f"it is a damaged or unsupported JPEG file ({jpeg_parts.kind(data)})"
    return "it is not an image, or its format is not supported"


def decode(
    data: bytes,
    jpeg_decoder: ModuleType | None,
    limits: ImageLimits = DEFAULT_LIMITS,
    pixels: PixelSettings = DEFAULT_PIXELS,
) -> PixelArray:
    """Decode the bytes of a file; `jpeg_decoder` is simplejpeg, or None for Pillow alone.

    Pixels and errors are the same with both: data for which simplejpeg has even a warning are
    decoded and judged by Pillow.

    Raises UnidentifiedImageError, MissingPackageError, one of `_DAMAGE`, and ValueError above
    `limits.pixels`.
    """
    if not is_jpeg(data):
        raster, turned = _raster(data, limits, pixels)
        return upright(to_eight_bits(raster, pixels), turned)
    rgb = _jpeg(data, jpeg_decoder, limits)
    return rgb if pixels.bands is None else chosen_bands(rgb, pixels)


def _raster(data: bytes, limits: ImageLimits, pixels: PixelSettings) -> tuple[Raster, int]:
    """The values of a file that is not JPEG, and the orientation that they are stored in."""
    every_band = pixels.bands is not None
    within = partial(check_size, limits)
    if dicom_images.is_dicom(data):
        return dicom_images.dicom_raster(data, pixels, within), 1
    tags = tiff_images.first_tags(data)
    if tiff_images.needs_tifffile(tags, every_band=every_band):
        return tiff_images.tiff_raster(data, tags, within, every_band=every_band)
    with opened_within(data, _formats(), limits) as image:
        raster = pillow_raster(image, data, every_band=every_band)
        return raster, _stored_orientation(image)


def _jpeg(data: bytes, jpeg_decoder: ModuleType | None, limits: ImageLimits) -> PixelArray:
    jpeg_parts.check_scans(data, limits.pixels)
    turned = orientation(jpeg_parts.exif(data))
    if jpeg_decoder is not None and _is_plain_jpeg(data, jpeg_decoder, limits.pixels):
        with suppress(ValueError):
            return upright(jpeg_decoder.decode_jpeg(data, strict=True), turned)
    return upright(_jpeg_by_pillow(data, limits), turned)


def _jpeg_by_pillow(data: bytes, limits: ImageLimits) -> PixelArray:
    """Decode by Pillow, which alone notices truncated data only if nothing follows them."""
    data = jpeg_parts.without_metadata(data)
    with opened_within(data, ("JPEG",), limits) as image:
        pixels = pillow_raster(image).values
        decoded = _digest(image)
    del image  # frees its memory, as the probe needs as much
    probe = jpeg_parts.probe(data)
    if probe is not None:
        with opened_within(probe, ("JPEG",), limits) as probed:
            if _digest(probed) != decoded:
                raise ValueError("premature end of its data: it is truncated or damaged")
    if jpeg_parts.lost_restart(data):
        raise ValueError("a restart marker is missing, and data with it: it is damaged")
    return pixels


def _digest(image: Image.Image) -> bytes:
    return hashlib.blake2b(image.tobytes()).digest()


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

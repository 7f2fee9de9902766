"""Image files to uint8 RGB arrays: whole and upright, or an error; never a partly grey image."""

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
from virtex.data.exif import jpeg_exif, orientation, upright
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
"""How the names of image files end, in lower case, wherever the name is all that is known."""

_JPEG_START = b"\xff\xd8\xff"
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


@dataclass(frozen=True)
class ImageLimits:
    """How large a file, and the image that it unpacks to, may be, and where the user sets that."""

    pixels: int = 178_956_970  # Pillow's own
    file_bytes: int = 256 << 20
    pixels_setting: str = "DATA.MAX_PIXELS"
    bytes_setting: str = "DATA.MAX_IMAGE_MB"


DEFAULT_LIMITS = ImageLimits()


def named_limits(
    pixels: int | None, megabytes: int | None, *, settings: tuple[str, str]
) -> ImageLimits:
    """The limits, the default for None; `settings` are what messages call the two."""
    return ImageLimits(
        DEFAULT_LIMITS.pixels if pixels is None else pixels,
        DEFAULT_LIMITS.file_bytes if megabytes is None else megabytes << 20,
        *settings,
    )


class BadImage(UserError):
    """A file that gives no image: its path, or where in a larger file it is, and the reason."""

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


ImageSource = Path | InLargerFile
"""Where the bytes of an image file are."""


def read_image(source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS) -> PixelArray:
    """The image in a file of any format that Pillow opens by itself, (H, W, 3) RGB, contiguous.

    It is upright by its Exif orientation. Transparent parts lie on white, which most transparent
    images on the web were drawn for; 16-bit grey is scaled to 8 bits; of an animation it is the
    first frame.

    Raises BadImage when the file is missing, empty, truncated, damaged, no image, or beyond
    `limits`.
    """
    return decode_image(read_bytes(source, limits), source, limits)


def decode_image(
    data: bytes, source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS
) -> PixelArray:
    """As `read_image`, of a file that was read already; errors name `source`."""
    try:
        return decode(data, simplejpeg, limits)
    except UnidentifiedImageError as error:
        raise BadImage(_named(source), _unidentified(data)) from error
    except _DAMAGE as error:
        reason = str(error) or f"it is damaged ({type(error).__name__})"
        raise BadImage(_named(source), reason) from error


def from_pillow(image: Image.Image) -> PixelArray:
    """An image of Pillow's as `read_image` would give it, (H, W, 3) RGB.

    Raises ValueError for 32-bit pixels of unknown range.
    """
    # Pillow itself turns TIFF.
    exif = b"" if image.format == "TIFF" else image.info.get("exif", b"")
    return upright(_rgb(image), orientation(exif))


def read_bytes(source: ImageSource, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of an image file; raises BadImage where there are none, or too many."""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                data = file.read(limits.file_bytes + 1)
        else:
            data = source.content()
    except OSError as error:
        raise BadImage(_named(source), error.strerror or str(error)) from error
    if not data:
        raise BadImage(_named(source), "the file is empty")
    if len(data) > limits.file_bytes:
        reason = f"the file is larger than {limits.bytes_setting}, {limits.file_bytes >> 20} MB"
        raise BadImage(_named(source), reason)
    return data


def _unidentified(data: bytes) -> str:
    if data.startswith(_JPEG_START):
        return f"it is a damaged JPEG, or of a kind that is not read ({jpeg_parts.kind(data)})"
    return "it is no image, or of a format that is not read"


def _named(source: ImageSource) -> Path | str:
    return source if isinstance(source, Path) else str(source)


def decode(
    data: bytes, jpeg_decoder: ModuleType | None, limits: ImageLimits = DEFAULT_LIMITS
) -> PixelArray:
    """The image in a file's bytes; `jpeg_decoder` is simplejpeg, or None for Pillow alone.

    Pixels and errors are the same with either: what simplejpeg has a word about, however small, is
    decoded and judged by Pillow.

    Raises UnidentifiedImageError, one of `_DAMAGE`, and ValueError above `limits.pixels`.
    """
    if not data.startswith(_JPEG_START):
        with _opened(data, _formats(), limits) as image:
            return from_pillow(image)
    jpeg_parts.check_scans(data, limits.pixels)
    turned = orientation(jpeg_exif(data))
    if jpeg_decoder is not None and _is_plain_jpeg(data, jpeg_decoder, limits.pixels):
        with suppress(ValueError):
            return upright(jpeg_decoder.decode_jpeg(data, strict=True), turned)
    return upright(_jpeg_by_pillow(data, limits), turned)


def _jpeg_by_pillow(data: bytes, limits: ImageLimits) -> PixelArray:
    """As Pillow decodes it, which notices data that break off only where nothing follows them."""
    data = jpeg_parts.without_metadata(data)
    with _opened(data, ("JPEG",), limits) as image:
        pixels = _rgb(image)
        decoded = _digest(image)
    del image  # its memory: a probe takes as much
    probe = jpeg_parts.probe(data)
    if probe is not None:
        with _opened(probe, ("JPEG",), limits) as probed:
            if _digest(probed) != decoded:
                raise ValueError("premature end of its data: it is truncated or damaged")
    if jpeg_parts.lost_restart(data):
        raise ValueError("a restart marker is missing, and with it data: it is damaged")
    return pixels


def _digest(image: Image.Image) -> bytes:
    return hashlib.blake2b(image.tobytes()).digest()


def _opened(data: bytes, formats: tuple[str, ...], limits: ImageLimits) -> Image.Image:
    """The image, not decoded yet; raises ValueError above `limits.pixels`."""
    if Image.MAX_IMAGE_PIXELS is not None and limits.pixels > 2 * Image.MAX_IMAGE_PIXELS:
        # Pillow's own bound, of the whole process, refuses images above twice this.
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
    """Names of the formats that are read, the common ones first."""
    Image.init()  # imports all of Pillow's readers, the first time
    others = (name for name in Image.ID if name not in (*_COMMON, *_NOT_READ))
    return (*(name for name in _COMMON if name in Image.ID), *others)


def _is_plain_jpeg(data: bytes, jpeg_decoder: ModuleType, max_pixels: int) -> bool:
    """Whether simplejpeg is as good as Pillow: not for four inks, rare samplings, bad headers.

    Nor above `max_pixels`, which Pillow's way refuses.
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

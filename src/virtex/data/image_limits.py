"""The largest image files and images that are read."""

import io
import re
from dataclasses import dataclass

from PIL import Image

_BYTES_PER_PIXEL = 16
"""Of values that are read for each of the most pixels allowed."""


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


def check_size(limits: ImageLimits, width: int, height: int, bytes_per_pixel: int) -> None:
    """Raise ValueError for more pixels than the limit, or more memory than these may take."""
    times = max(1, -(-bytes_per_pixel // _BYTES_PER_PIXEL))
    if width * height * times > limits.pixels:
        size = f"{width} x {height} pixels"
        shown = size if times == 1 else f"{size} of {bytes_per_pixel} bytes, as {times} times them,"
        raise ValueError(_too_large(shown, limits))


def opened_within(data: bytes, formats: tuple[str, ...], limits: ImageLimits) -> Image.Image:
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

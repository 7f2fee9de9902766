"""How images are read, from the configuration."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from virtex.config.data import Data
from virtex.config.pixels import PixelRange
from virtex.config.schema import Config
from virtex.data.images import ImageLimits
from virtex.data.pixel_values import PixelSettings, Range
from virtex.errors import UserError


def image_limits(data: Data) -> ImageLimits:
    """The largest files and images that are read."""
    return ImageLimits(data.max_pixels, data.max_image_mb << 20)


def pixel_settings(data: Data) -> PixelSettings:
    """How values of image files become 8 bits; auto without a choice is the range of the file."""
    return PixelSettings(
        ranges=_ranges(data.pixel_range),
        percentiles=data.pixel_percentiles,
        bands=data.bands,
        window=data.dicom_window,
        frame=data.dicom_frame,
    )


def _ranges(given: PixelRange) -> tuple[Range, ...] | Literal["percentiles"] | None:
    if given == "auto":
        return None
    if isinstance(given, str):
        return "percentiles"
    pairs = tuple(one for one in given if isinstance(one, tuple))
    if pairs:
        return pairs
    low, high = (float(one) for one in given if not isinstance(one, tuple))
    return ((low, high),)


def with_pixel_options(config: Config, given: Mapping[str, Any]) -> Config:
    """The configuration, with settings of `DATA` by their names in lower case; None is not given.

    For the range, window and frame of images that the run of a checkpoint did not read. Raises
    `UserError` for a value that a setting cannot have.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return config
    plain = {**config.data.model_dump(), **changes}
    try:
        data = Data.model_validate(plain)
    except ValidationError as error:
        problems = [detail["msg"].removeprefix("Value error, ") for detail in error.errors()]
        names = ", ".join(f"{name} {value}" for name, value in changes.items())
        raise UserError(f"{names}: {'; '.join(problems)}") from error
    return config.model_copy(update={"data": data})

"""What a sample of the images is like: sizes, bands, values, and which cannot be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from virtex.build.images import image_limits
from virtex.config.data import Data
from virtex.data.dicom_images import is_dicom
from virtex.data.image_limits import ImageLimits
from virtex.data.images import BadImage, ImageSource, decode_raster, read_bytes, read_image
from virtex.data.pixel_sample import (
    choose_ranges,
    describe_ranges,
    evenly_spaced,
    sample_pixels,
)
from virtex.data.pixel_values import PixelSettings
from virtex.data.records import Records
from virtex.errors import UserError

MOST = 400
"""The most images that are read."""
_LOOKED_AT = 10  # for their format
_ANY_BANDS = PixelSettings(bands=(1,))


@dataclass(frozen=True)
class ImageSurvey:
    """A sample of the images of a data set.

    `missing` are all image files that do not exist or are empty; `unreadable` has a line for each
    of the `checked` ones that cannot be read. `short_sides` are in pixels. `bands` is None for
    images that are read as RGB; `values` is a line on values of more than 8 bits, if there are any.
    """

    checked: int
    missing: tuple[Path, ...]
    unreadable: tuple[str, ...]
    short_sides: tuple[int, ...]
    bands: int | None
    values: str | None
    has_dicom: bool

    @property
    def short_side(self) -> int:
        """The median of the short sides."""
        return int(np.median(self.short_sides))


def survey_images(data: Data, splits: Sequence[Records]) -> ImageSurvey:
    """Read a sample of the images of some splits; raises UserError if none can be read."""
    limits = image_limits(data)
    missing = [path for records in splits for path in records.missing(range(len(records)))]
    absent = set(missing)
    sources = [source for source in _sampled(splits) if source not in absent]
    if not sources:
        raise UserError(f"{data.root}: no image file exists; the first is {missing[0]}")
    try:
        pixels, bands = _pixel_settings(sources, limits)
    except BadImage as error:
        raise UserError(f"{data.root}: no image can be read: {error}") from error
    sides, unreadable = list[int](), list[str]()
    for source in sources:
        try:
            sides.append(min(read_image(source, limits, pixels).shape[:2]))
        except BadImage as error:
            unreadable.append(f"{Path(str(error.picture)).name}: {error.reason}")
    if not sides:
        raise UserError(f"{data.root}: no image can be read: {unreadable[0]}")
    sample = sample_pixels(_some(sources), pixels, limits)
    return ImageSurvey(
        checked=len(sources),
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        short_sides=tuple(sides),
        bands=bands,
        values=describe_ranges(sample, pixels),
        has_dicom=any(_is_dicom(source, limits) for source in sources[:_LOOKED_AT]),
    )


def _some(sources: Sequence[ImageSource]) -> list[ImageSource]:
    """As many images as a run samples."""
    return [sources[place] for place in evenly_spaced(len(sources))]


def _is_dicom(source: ImageSource, limits: ImageLimits) -> bool:
    try:
        return is_dicom(read_bytes(source, limits))
    except BadImage:
        return False


def _sampled(splits: Sequence[Records]) -> list[ImageSource]:
    ends = np.cumsum([0, *map(len, splits)]).tolist()
    sources: list[ImageSource] = []
    for position in evenly_spaced(ends[-1], MOST):
        split = int(np.searchsorted(ends, position, side="right")) - 1
        try:
            sources.append(splits[split][position - ends[split]].image)
        except BadImage:  # its text is damaged
            continue
    return sources


def _pixel_settings(
    sources: Sequence[ImageSource], limits: ImageLimits
) -> tuple[PixelSettings, int | None]:
    """How a run reads the images by default, and the number of bands if that is not as RGB."""
    some = _some(sources)
    counts = [count for source in some if (count := _unnamed_bands(source, limits))]
    bands = min(counts) if 2 * len(counts) > len(some) else None
    pixels = PixelSettings(bands=None if bands is None else tuple(range(1, bands + 1)))
    sample = sample_pixels(some, pixels, limits)
    ranges = choose_ranges(sample, pixels.percentiles)
    return PixelSettings(ranges=ranges, bands=pixels.bands), bands


def _unnamed_bands(source: ImageSource, limits: ImageLimits) -> int:
    """The number of bands of an image that cannot be read as RGB because of them, else 0."""
    try:
        content = read_bytes(source, limits)
        stored = decode_raster(content, source, limits).values.shape[2]
        if stored in (1, 3):
            return 0
        return int(decode_raster(content, source, limits, _ANY_BANDS).values.shape[2])
    except BadImage:
        return 0

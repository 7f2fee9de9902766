"""The values in a sample of images: the range that fits them, and whether a given one does."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtex.data.image_limits import ImageLimits
from virtex.data.images import (
    BadImage,
    ImageSource,
    decode_raster,
    is_jpeg,
    read_bytes,
    read_image,
)
from virtex.data.pixel_values import (
    PIXEL_RANGE,
    PixelSettings,
    Range,
    bits_range,
    check_finite,
    chosen_bands,
)
from virtex.data.records import Records
from virtex.errors import UserError

SAMPLED_IMAGES = 64
"""The number of images in a sample."""

_PIXELS_PER_IMAGE = 4096
_MOST = (0.5, 99.5)
"""Percentiles between which most of the values lie."""
_SMALLEST_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class PixelSample:
    """The values in `images` images, of which `wide` have more than 8 bits.

    All else is of the latter: `values` (N, C) are pixels of theirs, with C = 1 for all bands
    together unless bands are chosen; `limits` are the lowest and highest value of each, over all
    pixels; `kinds` are their types, `declared` the ranges that the files declare, and `significant`
    is the number of bits that they call significant. `notes` counts what was left out, also of
    8-bit images.
    """

    images: int
    wide: int
    values: npt.NDArray[np.float64]
    limits: tuple[Range, ...]
    kinds: tuple[str, ...]
    declared: tuple[Range | None, ...]
    significant: int
    notes: Counter[str]

    @property
    def note_lines(self) -> list[str]:
        """A line for each kind of thing that was left out, with its count."""
        return [f"{count} of {self.images} {note}" for note, count in self.notes.items()]


def evenly_spaced(count: int, most: int = SAMPLED_IMAGES) -> list[int]:
    """At most `most` positions below `count`, evenly spaced from 0 on."""
    return [count * index // min(most, count) for index in range(min(most, count))]


def sampled_images(records: Records, within: Sequence[int] | None = None) -> Iterator[ImageSource]:
    """A sample of the images of records, of those at positions `within` if these are given."""
    positions = range(len(records)) if within is None else within
    for number in evenly_spaced(len(positions)):
        try:
            record = records[positions[number]]
        except BadImage:  # its text is damaged
            continue
        yield record.image


def sample_pixels(
    sources: Iterable[ImageSource], settings: PixelSettings, limits: ImageLimits
) -> PixelSample:
    """Read the values of a sample of images; those that cannot be read are passed over.

    Of JPEG files only the beginning is looked at. Raises the first error if no image can be read.
    """
    sampled = _Sampled(settings)
    for source in sources:
        sampled.add(source, limits)
    if sampled.errors and not sampled.images:
        raise sampled.errors[0]
    return sampled.finish()


class _Sampled:
    """Collects the values of images."""

    def __init__(self, settings: PixelSettings) -> None:
        self._settings = settings
        self.images = self._wide = self._significant = 0
        self.errors: list[BadImage] = []
        self._values: list[npt.NDArray[np.float64]] = []
        self._limits: list[npt.NDArray[np.float64]] = []  # (2, C) each
        self._kinds: Counter[str] = Counter()
        self._declared: Counter[Range | None] = Counter()
        self._notes: Counter[str] = Counter()

    def add(self, source: ImageSource, limits: ImageLimits) -> None:
        try:
            data = read_bytes(source, limits)
            if not is_jpeg(data):
                self._add(data, source, limits)
        except BadImage as error:
            self.errors.append(error)
        else:
            self.images += 1

    def _add(self, data: bytes, source: ImageSource, limits: ImageLimits) -> None:
        raster = decode_raster(data, source, limits, self._settings)
        try:
            values = chosen_bands(raster.values, self._settings)
            check_finite(values)
        except ValueError as error:
            raise BadImage(source, str(error)) from error
        self._notes.update(raster.notes)
        if raster.is_eight_bit:
            return
        self._wide += 1
        self._kinds[values.dtype.name] += 1
        self._declared[raster.declared] += 1
        self._significant = max(self._significant, raster.significant)
        columns = values.shape[2] if self._settings.bands is not None else 1
        pixels = values.reshape(-1, columns)
        self._limits.append(np.stack((pixels.min(axis=0), pixels.max(axis=0))).astype(np.float64))
        self._values.append(pixels[:: -(-len(pixels) // _PIXELS_PER_IMAGE)].astype(np.float64))

    def finish(self) -> PixelSample:
        bounds: tuple[Range, ...] = ()
        if self._limits:
            lows, highs = np.stack(self._limits, axis=1)
            pairs = zip(lows.min(axis=0), highs.max(axis=0), strict=True)
            bounds = tuple((float(low), float(high)) for low, high in pairs)
        return PixelSample(
            images=self.images,
            wide=self._wide,
            values=np.concatenate(self._values) if self._values else np.empty((0, 1)),
            limits=bounds,
            kinds=tuple(sorted(self._kinds)),
            declared=tuple(self._declared),
            significant=self._significant,
            notes=self._notes,
        )


def pixel_lines(
    sources: Sequence[ImageSource], settings: PixelSettings, limits: ImageLimits
) -> list[str]:
    """What a user should know of how images are read: a line for each finding in a sample."""
    sampled = [sources[position] for position in evenly_spaced(len(sources))]
    try:
        sample = sample_pixels(sampled, settings, limits)
    except BadImage:  # whoever reads them reports that
        return []
    problem = range_problem(sample, settings)
    lines = [f"of sampled images, {line}" for line in sample.note_lines]
    return lines if problem is None else [problem, *lines]


def choose_ranges(sample: PixelSample, percentiles: Range) -> tuple[Range, ...] | None:
    """The range for the values of each band, or of all; None if no image has more than 8 bits.

    Unsigned values have that of the fewest bits that hold all of them, or those that files call
    significant. If most of the values lie in less than a tenth of it, and for signed and
    floating-point values, it is that of the percentiles.

    Raises `UserError` if both kinds of values occur.
    """
    if not sample.wide:
        return None
    unsigned = [kind.startswith("u") for kind in sample.kinds]
    if any(unsigned) and not all(unsigned):
        raise UserError(
            f"the images hold values of different types ({', '.join(sample.kinds)}), which have no "
            f"range in common; set {PIXEL_RANGE} to the lowest and the highest value, or to "
            "percentiles"
        )
    chosen = []
    for values, (_, highest) in zip(sample.values.T, sample.limits, strict=True):
        bits = max(int(highest).bit_length(), sample.significant, 8)
        whole = bits_range(bits)
        if all(unsigned) and _share(values, whole) >= _SMALLEST_SHARE:
            chosen.append(whole)
        else:
            chosen.append(_between(values, percentiles))
    return tuple(chosen)


def _between(values: npt.NDArray[np.float64], percentiles: Range) -> Range:
    low, high = (float(f"{value:.6g}") for value in np.percentile(values, percentiles))
    return low, high if high > low else low + 1


def _share(values: npt.NDArray[np.float64], whole: Range) -> float:
    """The share of a range in which most of the values lie."""
    low, high = np.percentile(values, _MOST)
    used = min(high, whole[1]) - max(low, whole[0])
    return max(float(used / (whole[1] - whole[0])), 0.0)


def range_problem(sample: PixelSample, settings: PixelSettings) -> str | None:
    """A line if the range that is mapped does not fit the values of the sample, or is not known.

    It does not if most values lie in less than a tenth of it, or more than a tenth outside.
    """
    if not sample.wide or settings.ranges == "percentiles":
        return None
    ranges = settings.ranges or tuple(one for one in sample.declared if one is not None)
    if not ranges:
        return (
            f"the values of {sample.wide} of {sample.images} images ({', '.join(sample.kinds)}) "
            f"have no known range; set {PIXEL_RANGE}"
        )
    if settings.ranges is None:  # the widest one that files declare
        ranges = (max(ranges, key=lambda one: one[1] - one[0]),)
    columns = sample.values.T
    if len(ranges) == 1:
        ranges *= len(columns)
    for band, (values, whole) in enumerate(zip(columns, ranges, strict=False)):
        what = _misfit(values, whole)
        if what is not None:
            of_band = f" of band {band + 1}" if len(columns) > 1 else ""
            return (
                f"values of images with more than 8 bits{of_band}: {whole[0]:g} … {whole[1]:g} "
                f"become 0 … 255, but {what}; set {PIXEL_RANGE} so that they remain distinct"
            )
    return None


def _misfit(values: npt.NDArray[np.float64], whole: Range) -> str | None:
    """Why a range does not fit values (N,); None if it does."""
    low, high = np.percentile(values, _MOST)
    outside = float(np.mean((values < whole[0]) | (values > whole[1])))
    if outside > _SMALLEST_SHARE:
        return f"{100 * outside:.1f} % of them lie outside, most in {low:g} … {high:g}"
    share = _share(values, whole)
    if share < _SMALLEST_SHARE:
        return f"most of them lie in {low:g} … {high:g}, {100 * share:.1f} % of that"
    return None


def describe_ranges(sample: PixelSample, settings: PixelSettings) -> str | None:
    """A line on what becomes of images with more than 8 bits; None if the sample has none."""
    if not sample.wide:
        return None
    match settings.ranges:
        case None:
            mapped = "all values that a file declares become"
        case "percentiles":
            low, high = settings.percentiles
            mapped = f"percentiles {low:g} … {high:g} of each image become"
        case ranges:
            mapped = f"{', '.join(f'{low:g} … {high:g}' for low, high in ranges)} become"
    found = ", ".join(f"{low:g} … {high:g}" for low, high in sample.limits)
    return (
        f"{sample.wide} of {sample.images} sampled images have more than 8 bits "
        f"({', '.join(sample.kinds)} of {found}); {mapped} 0 … 255"
    )


def band_statistics(
    sources: Iterable[ImageSource], settings: PixelSettings, limits: ImageLimits
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each band over a sample of images, in [0, 1], as training sees them.

    Images that cannot be read are passed over. Raises `UserError` for a band with one value alone.
    """
    counts, sums = 0, np.zeros((2, len(settings.bands or (1, 2, 3))))
    for source in sources:
        try:
            image = read_image(source, limits, settings)
        except BadImage:
            continue
        pixels = image.reshape(-1, image.shape[2]).astype(np.float64) / 255
        counts += len(pixels)
        sums += pixels.sum(axis=0), np.square(pixels).sum(axis=0)
    mean = sums[0] / max(counts, 1)
    std = np.sqrt(np.maximum(sums[1] / max(counts, 1) - np.square(mean), 0))
    if (std < 1e-4).any():
        band = int(np.argmin(std))
        number = band + 1 if settings.bands is None else settings.bands[band]
        raise UserError(
            f"band {number} has the same value everywhere in the sampled images, so it cannot be "
            "normalised; remove it from DATA.BANDS, or write the mean and std of normalize"
        )
    return tuple(np.round(mean, 4).tolist()), tuple(np.round(std, 4).tolist())

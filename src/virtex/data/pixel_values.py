"""The values that an image file stores, and their mapping to 8 bits.

Values of 8 bits are never mapped. All others have a range: that of a setting, or the one that the
file declares.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

PixelArray = npt.NDArray[np.uint8]
Range = tuple[float, float]
Window = tuple[float, float]
Frame = Literal["error", "first", "middle"]
CheckSize = Callable[[int, int, int], None]
"""Raises ValueError for too large an image; takes width, height and bytes for each pixel."""

PIXEL_RANGE = "DATA.PIXEL_RANGE (--pixel-range on the command line)"
"""The setting of the range, as messages name it."""

_MOST_SAMPLED = 65_536  # pixels of an image for its percentiles


@dataclass(frozen=True)
class PixelSettings:
    """How the values of image files become uint8.

    `ranges` holds the values that become 0 and 255: one pair, or one for each of the chosen bands.
    "percentiles" takes the `percentiles` of each image, and None the range that the file declares.
    `bands` are the bands to read, counted from 1; None reads RGB, and grey as three equal bands.
    `window` is the centre and width of the window for DICOM files, "file" that of the file, and
    "none" maps their values as those of other files. `frame` is the one of a DICOM file with
    several.
    """

    ranges: tuple[Range, ...] | Literal["percentiles"] | None = None
    percentiles: Range = (0.5, 99.5)
    bands: tuple[int, ...] | None = None
    window: Window | Literal["file", "none"] = "file"
    frame: Frame = "error"

    @property
    def record(self) -> dict[str, str]:
        """What results say of them: nothing of defaults, with which 8-bit images are read."""
        shown = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            f"pixel_{name}": str(value)
            for name, value in shown.items()
            if value != getattr(DEFAULT_PIXELS, name)
        }


DEFAULT_PIXELS = PixelSettings()


class MissingPackageError(Exception):
    """A file needs a package that is not installed."""


@dataclass(frozen=True, eq=False)
class Raster:
    """The values of an image file, (H, W, C), before they are mapped to 8 bits.

    `declared` is the range that the file declares; None if its numbers have none. `alpha` (H, W)
    uint8 is the opacity. If `inverted`, low values are bright. `significant` is the number of bits
    that the file calls significant. `notes` are what is left out, for a report: predicates of
    several images, such as "have several pages, of which the first is used".
    """

    values: npt.NDArray[Any]
    declared: Range | None = (0, 255)
    alpha: PixelArray | None = None
    inverted: bool = False
    significant: int = 0
    notes: tuple[str, ...] = ()

    @property
    def is_eight_bit(self) -> bool:
        """Whether the values are used as they are."""
        return self.values.dtype == np.uint8


def bits_range(bits: int) -> Range:
    """The range of unsigned integers of so many bits."""
    return (0, 2**bits - 1)


def chosen_bands(values: npt.NDArray[Any], settings: PixelSettings) -> npt.NDArray[Any]:
    """The bands (H, W, N) of the settings, from (H, W, C); without a choice all.

    Raises ValueError if there are fewer, and for a number that is not 1 or 3 without a choice.
    """
    bands = values.shape[2]
    if settings.bands is None:
        if bands not in (1, 3):
            raise ValueError(
                f"it has {bands} bands, and nothing says which are red, green and blue; choose "
                "those to use with DATA.BANDS (virtex pack keeps all without --short-side)"
            )
        return values
    if (most := max(settings.bands)) > bands:
        held = "one band" if bands == 1 else f"{bands} bands"
        raise ValueError(f"it has {held}, and DATA.BANDS asks for number {most}")
    if settings.bands == tuple(range(1, bands + 1)):
        return values
    return np.ascontiguousarray(values[:, :, [band - 1 for band in settings.bands]])


def to_eight_bits(raster: Raster, settings: PixelSettings) -> PixelArray:
    """The image, (H, W, 3) RGB, or (H, W, N) with the N bands of the settings.

    A value v of a range (low, high) becomes floor(256 (v - low) / (high - low + 1)) if it is an
    integer, floor(256 (v - low) / (high - low)) otherwise, within 0 … 255. So the values of 16 bits
    keep their upper eight. Transparent parts are put on white unless bands are chosen.

    Raises ValueError for a range that is not known and for values that are not finite.
    """
    values = chosen_bands(raster.values, settings)
    check_finite(values)
    result = values if raster.is_eight_bit else _mapped(values, _ranges(raster, values, settings))
    if raster.inverted:
        result = 255 - result
    if settings.bands is not None:
        return result
    if result.shape[2] == 1:
        result = np.repeat(result, 3, axis=2)
    return result if raster.alpha is None else _on_white(result, raster.alpha)


def check_finite(values: npt.NDArray[Any]) -> None:
    """Raise ValueError if floating-point values (H, W, C) are NaN or infinite."""
    if values.dtype.kind != "f":
        return
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    row, column, band = (int(index[0]) for index in np.nonzero(bad))
    raise ValueError(
        f"{int(bad.sum())} of its {bad.size} values are NaN or infinite, the first in row "
        f"{row + 1}, column {column + 1}, band {band + 1}; replace them"
    )


def image_percentiles(
    values: npt.NDArray[Any], percentiles: Range, *, each_band: bool
) -> tuple[Range, ...]:
    """The percentiles of values (H, W, C), for each band or for all together."""
    pixels = values.reshape(-1, values.shape[2])
    pixels = pixels[:: -(-len(pixels) // _MOST_SAMPLED)]
    found = np.percentile(pixels.astype(np.float64), percentiles, axis=0 if each_band else None)
    return tuple((float(low), float(high)) for low, high in np.atleast_2d(found.T))


def _ranges(raster: Raster, values: npt.NDArray[Any], settings: PixelSettings) -> tuple[Range, ...]:
    bands = values.shape[2]
    if settings.ranges == "percentiles":
        each_band = settings.bands is not None
        ranges = image_percentiles(values, settings.percentiles, each_band=each_band)
    elif settings.ranges is not None:
        ranges = settings.ranges
    elif raster.declared is not None:
        ranges = (raster.declared,)
    else:
        raise ValueError(
            f"its pixels are {_kind(values)} numbers of unknown range; set {PIXEL_RANGE} to the "
            "lowest and the highest value, or to percentiles, or save it with 8 or 16 bits"
        )
    if len(ranges) not in (1, bands):
        raise ValueError(f"it has {bands} bands, but {PIXEL_RANGE} has {len(ranges)} ranges")
    return ranges * bands if len(ranges) == 1 else ranges


def _kind(values: npt.NDArray[Any]) -> str:
    names = {"f": "floating-point", "i": "signed", "u": "unsigned"}
    return f"{8 * values.dtype.itemsize}-bit {names.get(values.dtype.kind, 'complex')}"


def _mapped(values: npt.NDArray[Any], ranges: tuple[Range, ...]) -> PixelArray:
    result = np.empty(values.shape, np.uint8)
    if len(set(ranges)) == 1:
        result[:] = _map_band(values, *ranges[0])
        return result
    for band, (low, high) in enumerate(ranges):
        result[:, :, band] = _map_band(values[:, :, band], low, high)
    return result


def _map_band(values: npt.NDArray[Any], low: float, high: float) -> PixelArray:
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        mapped: PixelArray = _table(low, high)[values]
        return mapped
    if values.dtype.kind in "iu":
        return _floor(values.astype(np.float64), low, high - low + 1)
    return _floor(values.astype(np.float64), low, high - low)


@lru_cache(maxsize=32)
def _table(low: float, high: float) -> PixelArray:
    """What each value of 16 bits becomes."""
    return _floor(np.arange(65536, dtype=np.float64), low, high - low + 1)


def _floor(values: npt.NDArray[np.float64], low: float, width: float) -> PixelArray:
    scaled = 256 * (values - low) / (width if width > 0 else 1)
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _on_white(image: PixelArray, alpha: PixelArray) -> PixelArray:
    rgba = Image.fromarray(np.dstack((image, alpha)))
    white = Image.new("RGBA", rgba.size, "white")
    return np.array(Image.alpha_composite(white, rgba).convert("RGB"))

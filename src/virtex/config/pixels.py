"""The types of the settings of pixel values and bands, and their conflicts with each other."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from virtex.config.section import Conflict
from virtex.config.specs import TransformSpec

RGB = 3
"""The number of bands without a choice."""

PIXEL_FIELDS = ("pixel_range", "pixel_percentiles", "bands", "dicom_window", "dicom_frame")
"""The settings of `DATA` that say how the values of image files become those of the network."""

Pair = tuple[float, float]


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_range(value: Any) -> Any:
    if value in ("auto", "percentiles"):
        return value
    several = isinstance(value, list | tuple) and len(value) > 0 and all(map(_is_pair, value))
    pairs = tuple(map(tuple, value)) if several else (value,)
    if not all(_is_pair(pair) and pair[0] < pair[1] for pair in pairs):
        raise ValueError(
            "expected auto, percentiles, two numbers, the smaller first, such as [0, 4095], or a "
            "list of such pairs, one for each band"
        )
    return pairs if several else tuple(value)


def _check_window(value: Any) -> Any:
    if value in ("file", "none"):
        return value
    if _is_pair(value) and value[1] >= 1:
        return tuple(value)
    raise ValueError("expected file, none, or a centre and a width of at least 1, as [40, 400]")


def _check_percentiles(value: Any) -> Any:
    if _is_pair(value) and 0 <= value[0] < value[1] <= 100:
        return tuple(value)
    raise ValueError("expected two numbers from 0 to 100, the smaller first")


PixelRange = Annotated[
    Literal["auto", "percentiles"] | Pair | tuple[Pair, ...], BeforeValidator(_check_range)
]
Percentiles = Annotated[Pair, BeforeValidator(_check_percentiles)]
Window = Annotated[Literal["file", "none"] | Pair, BeforeValidator(_check_window)]
Bands = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1, max_length=64)]
Frame = Literal["error", "first", "middle"]


def pixel_conflicts(
    pixel_range: str | Pair | tuple[Pair, ...],
    bands: int,
    transforms: Sequence[tuple[str, Sequence[TransformSpec]]],
) -> Iterator[Conflict]:
    """The conflicts of settings with the number of bands; `transforms` are lists and their keys."""
    pairs = pixel_range if isinstance(pixel_range, tuple) else ()
    if pairs and isinstance(pairs[0], tuple) and len(pairs) != bands:
        yield (
            ("DATA.PIXEL_RANGE", "DATA.BANDS"),
            f"expected one pair of numbers for all bands, or {bands}, one for each",
        )
    for key, specs in transforms:
        for spec in specs:
            yield from _transform_conflicts(key, spec, bands)


def _transform_conflicts(key: str, spec: TransformSpec, bands: int) -> Iterator[Conflict]:
    arguments = spec.arguments
    normalizes = spec.name == "normalize" and not needs_statistics(spec, bands)
    if normalizes and {len(arguments["mean"]), len(arguments["std"])} != {bands}:
        yield (
            (key, "DATA.BANDS"),
            f"expected a mean and a std of normalize for each of {bands} bands; leave both out to "
            "have them computed from a sample of the training images",
        )
    if spec.name == "color_jitter" and bands != RGB and arguments["saturation"] + arguments["hue"]:
        yield (
            (key, "DATA.BANDS"),
            f"expected no saturation and hue for {bands} bands; remove color_jitter, or write "
            "\"color_jitter::{'saturation': 0, 'hue': 0}\"",
        )


def needs_statistics(normalize: TransformSpec, bands: int) -> bool:
    """Whether a mean and a deviation for each band are still to be computed."""
    return bands != RGB and not normalize.written

"""How images are read and transformed, from the configuration."""

from collections.abc import Sequence
from typing import Literal

from virtex.config.data import Data
from virtex.config.pixels import PixelRange
from virtex.config.specs import TransformSpec
from virtex.data import transforms
from virtex.data.images import ImageLimits
from virtex.data.pixel_values import PixelSettings, Range
from virtex.data.transforms import Transform


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


def transform_steps(specs: Sequence[TransformSpec], crop_size: int) -> list[Transform]:
    """The transforms before normalisation, which is the backbone's."""
    built: list[Transform] = []
    for spec in specs:
        match spec.name:
            case "random_resized_crop":
                built.append(transforms.RandomResizedCrop(crop_size, **spec.arguments))
            case "horizontal_flip":
                built.append(transforms.HorizontalFlip(**spec.arguments))
            case "color_jitter":
                built.append(transforms.ColorJitter(**spec.arguments))
            case "smallest_resize":
                size = round(spec.arguments["size"]) or crop_size
                built.append(transforms.SmallestResize(size))
            case "center_crop":
                built.append(transforms.CenterCrop(crop_size))
            case "normalize":
                pass
            case _:
                raise AssertionError(f"{spec.name} passed the configuration's check")
    return built

"""The transforms of images, from the configuration."""

from collections.abc import Sequence

from virtex.config.specs import TransformSpec
from virtex.data import transforms
from virtex.data.transforms import Transform


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

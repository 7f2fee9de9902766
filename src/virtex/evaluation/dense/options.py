"""The options of the protocols that train a head, for both alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch

from virtex.data.images import ImageLimits, OnBadImage
from virtex.evaluation.dense.detection_job import DetectorName
from virtex.training.precision import PrecisionName


@dataclass(frozen=True)
class DenseOptions:
    """The options by the names of the flags of `virtex evaluate`; None is the default."""

    data: Path
    checkpoints: Sequence[str]
    device: torch.device
    precision: PrecisionName
    limits: ImageLimits
    pixels: Mapping[str, Any]
    cpu_workers: int
    on_bad_image: OnBadImage
    seed: int
    batch_size: int
    frozen: bool
    resume: bool
    config: Path | None
    network: str | None
    image_size: int | None
    processes: int | None
    iterations: int | None
    learning_rate: float | None
    work_dir: Path | None
    save_every: int | None
    detector: DetectorName | None
    min_size: int | None
    max_size: int | None
    pyramid_channels: int | None
    mask_classes: Path | None

    @classmethod
    def select(cls, options: Mapping[str, Any]) -> Self:
        """Those among the options of all protocols."""
        return cls(**{field.name: options[field.name] for field in fields(cls)})


def given(**values: Any) -> dict[str, Any]:
    """The values that are not None."""
    return {name: value for name, value in values.items() if value is not None}

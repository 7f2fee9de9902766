"""Train visual backbones from captions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from virtex._version import __version__

if TYPE_CHECKING:
    from virtex.checkpoints.exported import Target
    from virtex.config.schema import Config
    from virtex.evaluation.results import Result
    from virtex.exporting.verification import Verification
    from virtex.inference.pretrained import Pretrained

__all__ = ["__version__", "evaluate", "export", "load", "pretrain"]


def load(
    path: str | Path,
    *,
    config: "str | Path | Config | None" = None,
    tokenizer: str | Path | None = None,
    max_pixels: int | None = None,
    max_image_mb: int | None = None,
    pixel_range: "tuple[float, float] | Literal['percentiles'] | None" = None,
) -> "Pretrained":
    """Load a pretrained model from its checkpoint; see `virtex.inference.pretrained.load`."""
    # Imported here, so that importing the package is fast.
    from virtex.inference import pretrained

    return pretrained.load(
        path,
        config=config,
        tokenizer=tokenizer,
        max_pixels=max_pixels,
        max_image_mb=max_image_mb,
        pixel_range=pixel_range,
    )


def evaluate(
    protocol: str,
    data: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    **options: Any,
) -> "list[Result]":
    """Evaluate checkpoints by a protocol; see `virtex.evaluation.interface.evaluate`."""
    from virtex.evaluation import interface

    return interface.evaluate(protocol, data, checkpoints, **options)


def export(
    checkpoint: str | Path,
    target: "Target",
    directory: str | Path,
    *,
    config: str | Path | None = None,
    network: str | None = None,
) -> "list[Verification]":
    """Export the backbone of a checkpoint; see `virtex.exporting.interface.export`."""
    from virtex.exporting import interface

    return interface.export(checkpoint, target, directory, config=config, network=network)


def pretrain(config: str | Path, directory: str | Path, **options: Any) -> Path:
    """Pretrain, and return the last checkpoint; see `virtex.training.interface.pretrain`."""
    from virtex.training import interface

    return interface.pretrain(config, directory, **options)

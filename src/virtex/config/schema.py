"""The settings of a pretraining run: their types, ranges, defaults and descriptions.

A key in YAML is the field's name in upper case (`config.optim.clip_grad_norm` is
`OPTIM.CLIP_GRAD_NORM`). Values are frozen. Nothing heavy is imported, so that a mistake is found
before any work starts. What depends on the task is checked by `virtex.build.model`.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from virtex.config.data import STRIDE, Data
from virtex.config.evaluate import LABELLED, Evaluate
from virtex.config.model import Model, TaskName
from virtex.config.optim import Optim, multiples_around
from virtex.config.section import Conflict, Section, reports_conflicts
from virtex.config.specs import patch_side
from virtex.errors import UserError

__all__ = ["Config", "TaskName", "check_processes"]

_WITH_BATCH_NORM = ("resnet", "resnext", "wide_resnet", "regnet")


class Config(Section):
    """A pretraining run of virtex."""

    random_seed: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        description="Random seed of the initial weights, the data order, augmentation and dropout.",
    )
    amp: bool = Field(
        default=True,
        description="Train in mixed precision, in bfloat16 or float16, where it is faster.",
    )
    cudnn_deterministic: bool = Field(
        default=False,
        description="Use only deterministic cuDNN kernels; other operations may still be "
        "nondeterministic.",
    )
    cudnn_benchmark: bool = Field(
        default=True, description="Benchmark the cuDNN kernels and use the fastest."
    )
    sync_bn: bool = Field(
        default=False,
        description="Synchronize batch norm statistics over all processes. Otherwise, as "
        "published, each process has its own, and those of the first are saved.",
    )
    channels_last: bool = Field(
        default=True,
        description="Use the channels-last memory layout in the backbone, which is faster and "
        "changes only rounding.",
    )
    log_samples: Literal["none", "text", "images"] = Field(
        default="images",
        description="What validation leaves in logs and event files of the data itself: images "
        "with their given and predicted captions or labels, only these texts, or none of them. "
        "Losses and other figures are always logged.",
    )
    data: Data = Data()
    model: Model = Model()
    optim: Optim = Optim()
    evaluate: Evaluate = Evaluate()

    @reports_conflicts
    def _conflicts(self) -> Iterator[Conflict]:
        decoder, data = self.model.decoder, self.data
        if decoder.max_decoding_steps > data.max_caption_length:
            # The head has no embeddings of later positions.
            yield (
                ("MODEL.DECODER.MAX_DECODING_STEPS", "DATA.MAX_CAPTION_LENGTH"),
                "expected no more decoding steps than tokens in a caption; set MAX_DECODING_STEPS "
                f"to at most {data.max_caption_length}, or MAX_CAPTION_LENGTH to at least "
                f"{decoder.max_decoding_steps}",
            )
        patch = patch_side(self.model.visual.network)
        rest = data.image_crop_size % patch
        if rest:
            yield (
                ("DATA.IMAGE_CROP_SIZE", "MODEL.VISUAL.NAME"),
                f"expected a crop size that is divisible by the patch size of the network, {patch}"
                f" pixels; set IMAGE_CROP_SIZE to {data.image_crop_size + patch - rest}",
            )
        if patch > 1 and data.image_sizes:
            yield (
                ("DATA.IMAGE_SIZES", "MODEL.VISUAL.NAME"),
                "expected one size for a ViT, whose positions are embedded; set IMAGE_SIZES to []",
            )
        captioned = [name for name in self.evaluate.protocols if name not in LABELLED]
        formats: list[str] = [source.format for source in data.sources] or [data.format]
        files = any(form in ("coco", "table", "folder") for form in formats)
        if self.evaluate.every and captioned and not files:
            yield (
                ("EVALUATE.PROTOCOLS", "DATA.SOURCES" if data.sources else "DATA.FORMAT"),
                "expected data in the format coco, table or folder for "
                f"{' and '.join(captioned)}; set PROTOCOLS to knn or linear, with labelled images "
                "in EVALUATE.DATA, or EVALUATE.EVERY to 0",
            )


def check_processes(config: Config, processes: int) -> None:
    """Raise `UserError` unless the batch can be split among the processes and their microbatches.

    Batch norm must get more than one value per channel from each of the parts.
    """
    batch_size, accumulate = config.optim.batch_size, config.optim.accumulate
    parts = processes * accumulate
    if batch_size % parts:
        times = f" times OPTIM.ACCUMULATE {accumulate}" if accumulate > 1 else ""
        raise UserError(
            f"'OPTIM.BATCH_SIZE' is {batch_size} over all processes, which is not divisible by "
            f"{processes} processes{times}; choose {multiples_around(batch_size, parts)}"
        )
    if batch_size == parts and _one_value_per_channel(config, processes):
        size = config.data.smallest_image_size
        key = "IMAGE_CROP_SIZE" if size == config.data.image_crop_size else "IMAGE_SIZES"
        raise UserError(
            f"'OPTIM.BATCH_SIZE' is {batch_size} over all processes, so that each computes one "
            f"image at a time, and 'DATA.{key}' is {size}, which leaves one position of the grid: "
            f"batch norm needs more than one value; set OPTIM.BATCH_SIZE to {2 * parts}, or "
            f"DATA.{key} to 64"
        )


def _one_value_per_channel(config: Config, processes: int) -> bool:
    """Whether one image gives batch norm in training a single value per channel."""
    visual = config.model.visual
    trains_batch_norm = not visual.frozen and visual.network.startswith(_WITH_BATCH_NORM)
    synchronized = config.sync_bn and processes > 1
    return trains_batch_norm and not synchronized and config.data.smallest_image_size <= STRIDE

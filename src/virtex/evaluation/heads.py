"""Models whose captioning head is evaluated, their images, and the results of an evaluation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from virtex.build.images import pixel_settings, with_pixel_options
from virtex.build.transforms import transform_steps
from virtex.data.images import BadImage, ImageLimits, OnBadImage
from virtex.data.pixel_sample import pixel_lines
from virtex.errors import RunError, UserError, first_few
from virtex.evaluation.backbones import RANDOM, TORCHVISION, check_distinct, weights_hash
from virtex.evaluation.features import image_batches
from virtex.evaluation.figures import Figure
from virtex.evaluation.preprocessing import Preprocessing
from virtex.evaluation.results import Result, to_results
from virtex.inference.pretrained import Pretrained, load
from virtex.models.modes import evaluating
from virtex.tasks import find_task
from virtex.text.tokenizer import Tokenizer
from virtex.training.precision import Precision


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with a captioning head in evaluation mode, on the CPU until it is evaluated.

    `name` is the path of its file, `sha256` the hash of all its weights.
    """

    name: str
    pretrained: Pretrained
    sha256: str

    @property
    def path(self) -> Path:
        """The file that holds it."""
        return Path(self.name)

    @property
    def iteration(self) -> int | None:
        """The iteration of the run that saved it; None if no run of virtex did."""
        return self.pretrained.iteration

    @property
    def tokenizer(self) -> Tokenizer:
        """The vocabulary of its head."""
        assert isinstance(self.pretrained.vocabulary, Tokenizer)
        return self.pretrained.vocabulary


@dataclass(frozen=True)
class HeadSettings:
    """How models are run. `say` gets messages, `advance` counts images."""

    precision: Precision
    device: torch.device
    batch_size: int = 32
    workers: int = 0
    on_bad_image: OnBadImage = "error"
    say: Callable[[str], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None


@dataclass(frozen=True)
class HeadEvaluation:
    """The images of a protocol, the hash of the data, and what there is to report of them.

    `figures` evaluates a model that is on the device of the settings.
    """

    root: Path
    paths: tuple[Path, ...]
    sha256: str
    report: tuple[str, ...]
    figures: Callable[[EvaluatedModel, HeadSettings], list[Figure]]


def open_models(
    names: Sequence[str],
    *,
    config: Path | None = None,
    tokenizer: Path | None = None,
    limits: ImageLimits | None = None,
    pixels: Mapping[str, Any] | None = None,
    average: bool = False,
) -> list[EvaluatedModel]:
    """The models of checkpoints; raises `UserError` for one that has no captioning head.

    `pixels` replaces settings of `DATA` by their names in lower case. `average` takes the average
    of the weights of the checkpoints.
    """
    check_distinct(names)
    for name in names:
        if name in (RANDOM, TORCHVISION):
            raise UserError(
                f"--checkpoint {name} is a backbone without a captioning head; name the checkpoint "
                "of a captioning model"
            )
    models = []
    for name in names:
        pretrained = load(name, config=config, tokenizer=tokenizer, average=average)
        _check_head(name, pretrained)
        adjusted = with_pixel_options(pretrained.config, pixels or {})
        pretrained = replace(pretrained, config=adjusted)
        if limits is not None:
            pretrained = replace(pretrained, limits=limits)
        sha256 = weights_hash(pretrained.objective.state_dict())
        models.append(EvaluatedModel(name, pretrained, sha256))
    return models


def _check_head(name: str, pretrained: Pretrained) -> None:
    task_name = pretrained.config.model.name
    task = find_task(task_name)
    if task.captioning_head is not None:
        return
    reason = (
        "its head predicts labels instead of text"
        if task.head == "linear"
        else "its head fills in words from those on both sides, so it has no likelihood of a text"
    )
    raise UserError(
        f"--checkpoint {name} was trained by {task_name}: {reason}; take a model of bicaptioning, "
        "captioning or parallel_captioning"
    )


class BadImages:
    """The images that cannot be read; the first raises `UserError` unless they are skipped."""

    def __init__(self, images: int, settings: HeadSettings) -> None:
        self._images, self._settings = images, settings
        self._errors: list[BadImage] = []

    def add(self, errors: Sequence[BadImage]) -> None:
        if errors and self._settings.on_bad_image == "error":
            raise UserError(
                f"{errors[0]}; repair or remove it, or give --on-bad-image skip to leave such "
                "images out"
            )
        self._errors += errors

    def report(self) -> None:
        """Report them at the end; raises `UserError` if no image could be read."""
        bad = len(self._errors)
        if bad == self._images:
            raise UserError(f"none of {bad} images can be read; the first: {self._errors[0]}")
        if bad:
            self._settings.say(
                f"{bad} of {self._images} images cannot be read: {first_few(self._errors)}; they "
                "are left out"
            )


def image_grids(
    model: EvaluatedModel, paths: Sequence[Path], settings: HeadSettings
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor]]:
    """The positions (B,) in `paths` of each batch of images, and their grid (B, C, h, w).

    Images are cropped as for validation. Raises `UserError` for one that cannot be read, unless
    such images are skipped.
    """
    pretrained = model.pretrained
    data = pretrained.config.data
    visual = pretrained.objective.visual
    bad = BadImages(len(paths), settings)
    batches = image_batches(
        paths,
        Preprocessing(
            tuple(transform_steps(data.transforms_val, data.image_crop_size)), pixel_settings(data)
        ),
        limits=pretrained.limits,
        batch_size=settings.batch_size,
        workers=settings.workers,
        pin_memory=settings.device.type == "cuda",
    )
    for batch, errors in batches:
        bad.add(errors)
        settings.advance(len(errors))
        if not batch:
            continue
        with evaluating(visual), settings.precision.autocast():
            grid = visual(batch["image"].to(settings.device, non_blocking=True))
        yield batch["position"].numpy(), grid
        settings.advance(len(grid))
    bad.report()


def evaluate_heads(
    protocol: str,
    evaluation: HeadEvaluation,
    models: Sequence[EvaluatedModel],
    settings: HeadSettings,
    *,
    seed: int = 0,
) -> Iterator[tuple[EvaluatedModel, list[Result]]]:
    """Each model with its results, as they are found; raises `UserError` for bad images."""
    for model in models:
        model.pretrained.to(settings.device)
        pixels = pixel_settings(model.pretrained.config.data)
        for line in pixel_lines(evaluation.paths, pixels, model.pretrained.limits):
            settings.say(line)
        try:
            figures = evaluation.figures(model, settings)
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"the GPU's memory is too small for {settings.batch_size} images at once; give a "
                "smaller --batch-size"
            ) from error
        model.pretrained.to("cpu")
        common = {
            "image_size": model.pretrained.config.data.image_crop_size,
            "precision": settings.precision.name,
            **pixels.record,
        }
        yield (
            model,
            to_results(
                figures,
                protocol,
                model,
                data=evaluation.sha256,
                root=evaluation.root,
                seed=seed,
                settings=common,
            ),
        )

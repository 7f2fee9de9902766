"""Fine-tuning as a protocol: what a run starts from, its configuration, and its judgement.

The run itself is one of the task `image_classification` and lies above this room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from virtex.build.model import build_backbone, new_run_conflicts
from virtex.build.resolve import iterations_of, resolve_length
from virtex.config import loading
from virtex.config.messages import Layer
from virtex.config.schema import Config
from virtex.data import subset
from virtex.data.sources.labelled import LabelledData, read_labelled
from virtex.errors import UserError
from virtex.evaluation.backbones import RANDOM, TORCHVISION, module_hash, open_backbones
from virtex.evaluation.features import data_hash
from virtex.evaluation.starting_backbone import StartingBackbone, pixels_of
from virtex.models.networks import feature_size

_TASK = "image_classification"
_EPOCHS = 10
_BATCH_SIZE = 64
_IS_FROM = {
    "DATA.ROOT": "--data",
    "DATA.FORMAT": "--data",
    "DATA.VOCAB_SIZE": "--data",
    "MODEL.VISUAL.NAME": "--checkpoint or --network",
    "MODEL.VISUAL.FEATURE_SIZE": "--checkpoint or --network",
    "MODEL.VISUAL.PRETRAINED": "--checkpoint",
}
"""Settings that the user does not give, and where they come from."""
_FLAGS = {
    "OPTIM.NUM_ITERATIONS": "--epochs",
    "OPTIM.NUM_EPOCHS": "--epochs",
    "DATA.IMAGE_CROP_SIZE": "--image-size",
    "MODEL.VISUAL.FROZEN": "--frozen",
}


@dataclass(frozen=True)
class FinetuneRequest:
    """What a user asks for; `config` is a YAML file, or None for the default recipe."""

    data: Path
    checkpoint: str
    config: Path | None = None
    overrides: Sequence[str] = ()
    network: str | None = None
    image_size: int | None = None
    epochs: int | None = None
    frozen: bool = False
    checkpoint_every: int | None = None

    @property
    def flags(self) -> dict[str, object]:
        """The settings that flags of their own give; None for those that are not given."""
        return {
            "OPTIM.NUM_ITERATIONS": self.epochs,
            "OPTIM.NUM_EPOCHS": self.epochs,
            "DATA.IMAGE_CROP_SIZE": self.image_size,
            "MODEL.VISUAL.FROZEN": self.frozen or None,
        }


@dataclass(frozen=True)
class Finetuning:
    """A run that can be started: its configuration, its start, and what it is judged on.

    `chosen` are the settings that were given on the command line, and `report` is for the user.
    """

    config: Config
    start: StartingBackbone
    data_sha256: str
    chosen: tuple[str, ...]
    report: tuple[str, ...]


def prepare_finetuning(request: FinetuneRequest, start: StartingBackbone | None) -> Finetuning:
    """Read labels and backbone, and resolve the configuration of a run.

    `start` is that of the run that resumes; None opens the checkpoint. Raises `UserError` for
    everything that is wrong with these.
    """
    draft = _draft(request)
    data = read_labelled(request.data, draft.random_seed)
    _check_negatives(data)
    if start is None:
        start = _open_start(request, draft)
    elif start.name != request.checkpoint:
        raise UserError(
            f"--checkpoint {request.checkpoint}: the run began from {start.name}; give that one to "
            "resume it, or another --serialization-dir"
        )
    config, chosen = _resolve(request, draft, data, start)
    if start.name == RANDOM:
        torch.manual_seed(config.random_seed)  # as the run does
        initial = module_hash(build_backbone(config, weights_follow=True))
        start = start.model_copy(update={"sha256": initial})
    paths = (*data.train.paths, *data.test.paths)
    labels = np.concatenate([data.train.labels, data.test.labels])
    return Finetuning(
        config=config,
        start=start,
        data_sha256=data_hash(data.directory, paths, labels),
        chosen=chosen,
        report=_report(config, data, start),
    )


def _draft(request: FinetuneRequest) -> Config:
    """The configuration as far as the user gives it; raises `UserError` for what it may not be."""
    for key in request.overrides[::2]:
        if key in _IS_FROM:
            raise UserError(f"--config-override {key}: it comes from {_IS_FROM[key]}; remove it")
        if request.flags.get(key) is not None:
            flag = _FLAGS[key]
            raise UserError(f"--config-override {key}: {flag} sets it too; give only one of them")
    layers = [*_base_layers(request), *loading.override_layers(request.overrides)]
    config = loading.load_layers(Config, layers, _name(request))
    if config.model.name != _TASK:
        raise UserError(
            f"--config {request.config}: MODEL.NAME is {config.model.name}; expected {_TASK}, as "
            "in the configurations of downstream/ (`virtex config --list`)"
        )
    return config


def _base_layers(request: FinetuneRequest) -> list[Layer]:
    if request.config is not None:
        return list(loading.file_layers(request.config))
    # As for iNaturalist, and with a frozen backbone as for ImageNet, in downstream/; but the
    # gradient is clipped, and there is a warm-up, as data may be few and weights random.
    crop = "random_resized_crop::{'scale': (0.08, 1.0)}"
    recipe: dict[str, object] = {
        "DATA": {"IMAGE_TRANSFORM_TRAIN": [crop, "horizontal_flip", "normalize"]},
        "MODEL": {"NAME": _TASK, "TEXTUAL": {"NAME": "none", "INITIAL_STD": 0.01}},
        "OPTIM": {
            "WEIGHT_DECAY": 0.0 if request.frozen else 1e-4,
            "NO_DECAY": "none",
            "LOOKAHEAD": {"USE": False},
            "WARMUP_STEPS": 0,
        },
    }
    return [("in the default recipe", recipe)]


def _name(request: FinetuneRequest) -> str:
    return "the default recipe" if request.config is None else str(request.config)


def _check_negatives(data: LabelledData) -> None:
    """Raise `UserError` if no class can be judged because all its test images are positives."""
    labels = data.test.labels
    if data.several and not (labels == -1).any():
        raise UserError(
            f"{data.root}: no test image is without any of its classes, so that nothing can be "
            "ranked; label absent classes with 0 in a table, or -1 in a VOC tree"
        )


def _open_start(request: FinetuneRequest, draft: Config) -> StartingBackbone:
    network, size = request.network, request.image_size
    if network is None and request.config is not None:
        network = draft.model.visual.name
    if size is None and (
        request.config is not None or "image_crop_size" in draft.data.model_fields_set
    ):
        size = draft.data.image_crop_size
    [backbone] = open_backbones([request.checkpoint], network_name=network, image_size=size)
    config = draft if request.checkpoint == RANDOM else backbone.config
    pretrained = {RANDOM: False, TORCHVISION: True}.get(request.checkpoint, request.checkpoint)
    visual = backbone.config.model.visual
    return StartingBackbone(
        name=request.checkpoint,
        sha256=backbone.sha256,
        iteration=backbone.iteration,
        visual={
            "NAME": visual.name,
            "FEATURE_SIZE": visual.feature_size or feature_size(visual.network),
            "PRETRAINED": pretrained,
        },
        normalize=config.data.image_transform_train[-1],
        image_size=backbone.image_size,
        pixels=pixels_of(config),
    )


def _resolve(
    request: FinetuneRequest, draft: Config, data: LabelledData, start: StartingBackbone
) -> tuple[Config, tuple[str, ...]]:
    """The complete configuration, and the settings that were given on the command line."""
    layers = _base_layers(request)
    if start.pixels:
        layers.append(("of --checkpoint", {"DATA": start.pixels}))
    given = [key for key, value in request.flags.items() if value is not None]
    chosen = [*request.overrides[::2], *given, "DATA.ROOT", "DATA.VOCAB_SIZE"]
    if "OPTIM.NUM_EPOCHS" in chosen:
        recipe = ["OPTIM.WARMUP_STEPS"] if request.config is None else []
        chosen += ["OPTIM.NUM_ITERATIONS", *recipe]
    if request.config is None:
        layers.append(("in the default recipe", _by_size(request, draft, data, start)))
    layers += loading.override_layers(request.overrides)
    if request.epochs is not None:
        batch_size = draft.optim.batch_size if request.config else _batch_size(draft, data)
        iterations = iterations_of(request.epochs, _training_images(draft, data), batch_size)
        length = {"NUM_ITERATIONS": iterations, "NUM_EPOCHS": None}
        layers.append(("from --epochs", {"OPTIM": length}))
    if request.frozen:
        layers.append(("from --frozen", {"MODEL": {"VISUAL": {"FROZEN": True}}}))
    if request.image_size is not None:
        layers.append(("from --image-size", {"DATA": {"IMAGE_CROP_SIZE": request.image_size}}))
    found: dict[str, object] = {
        "FORMAT": "labelled",
        "ROOT": str(request.data),
        "VOCAB_SIZE": len(data.classes),
    }
    layers.append(("from --data", {"DATA": found}))
    layers.append(("from --checkpoint", {"MODEL": {"VISUAL": start.visual}}))
    if draft.data.image_transform_train[-1] != start.normalize:
        transforms = {
            "IMAGE_TRANSFORM_TRAIN": [*draft.data.image_transform_train[:-1], start.normalize],
            "IMAGE_TRANSFORM_VAL": [*draft.data.image_transform_val[:-1], start.normalize],
        }
        layers.append(("with the normalisation of --checkpoint", {"DATA": transforms}))
    config = loading.load_layers(
        Config,
        layers,
        _name(request),
        check=lambda config: new_run_conflicts(config, request.checkpoint_every),
    )
    return resolve_length(config, _training_images(draft, data)), tuple(chosen)


def _by_size(
    request: FinetuneRequest, draft: Config, data: LabelledData, start: StartingBackbone
) -> dict[str, object]:
    """The settings of the default recipe that depend on the data and the backbone."""
    batch_size = _batch_size(draft, data)
    epochs = request.epochs or draft.optim.num_epochs or _EPOCHS
    iterations = iterations_of(epochs, _training_images(draft, data), batch_size)
    by_epochs = request.epochs is None and draft.optim.num_epochs is not None
    if request.epochs is None and "num_iterations" in draft.optim.model_fields_set:
        iterations = draft.optim.num_iterations or iterations
    # In proportion to the batch (Goyal et al. 2017, arXiv 1706.02677), from those for 256 images.
    rate = (0.3 if request.frozen else 0.025) * batch_size / 256
    optim = {
        "BATCH_SIZE": batch_size,
        "CNN_LR": rate,
        "LR": rate,
        "NUM_ITERATIONS": None if by_epochs else iterations,
        "WARMUP_STEPS": iterations // 20,
    }
    return {"DATA": {"IMAGE_CROP_SIZE": start.image_size}, "OPTIM": optim}


def _batch_size(draft: Config, data: LabelledData) -> int:
    """The size that the user gives, or else 64 or as large a power of two as there are images."""
    if "batch_size" in draft.optim.model_fields_set:
        return draft.optim.batch_size
    return min(_BATCH_SIZE, 1 << (_training_images(draft, data).bit_length() - 1))


def _training_images(draft: Config, data: LabelledData) -> int:
    """The number of images that are trained on, at least 1."""
    settings = draft.data
    size = subset.subset_size(len(data.train), settings.use_percentage, settings.subset_manifest)
    return max(1, size)


def _report(config: Config, data: LabelledData, start: StartingBackbone) -> tuple[str, ...]:
    kind = "any number of labels" if data.several else "one label"
    images = _training_images(config, data)
    epochs = config.optim.iterations * config.optim.batch_size / images
    frozen = "frozen" if config.model.visual.frozen else "trained as well"
    return (
        f"{len(data.classes)} classes, {kind} an image: {images} training and {len(data.test)} "
        f"test images ({data.kind})",
        f"backbone: {config.model.visual.name} of {start.name}, {frozen}",
        f"{config.optim.iterations:,} iterations of {config.optim.batch_size} images, "
        f"{epochs:.1f} epochs",
    )

"""What a protocol evaluates: images, models and settings, from the options of a command or call."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from virtex.data.shards.store import cache_directory
from virtex.errors import UserError
from virtex.evaluation.backbones import EvaluatedBackbone, open_backbones
from virtex.evaluation.captioning import open_captioning
from virtex.evaluation.evaluate import EvaluationData, open_evaluation
from virtex.evaluation.features import FeatureSettings, check_images
from virtex.evaluation.heads import EvaluatedModel, HeadEvaluation, HeadSettings, open_models
from virtex.evaluation.retrieval import open_retrieval
from virtex.evaluation.scenes import SceneSettings, open_scenes
from virtex.evaluation.zero_shot import DEFAULT_TEMPLATES, open_zero_shot
from virtex.files import check_writable
from virtex.inference.pretrained import Pretrained
from virtex.training.precision import Precision, PrecisionName, named_precision


def open_features(
    options: Mapping[str, Any],
) -> tuple[EvaluationData, list[EvaluatedBackbone], FeatureSettings]:
    """The images, the backbones and the settings of a protocol on frozen features.

    `options` are those of the protocol, with their defaults. Raises `UserError`.
    """
    data = open_evaluation(
        options["protocol"], options["data"], seed=options["seed"], engine=options["engine"]
    )
    backbones = open_backbones(
        options["checkpoints"],
        config=options["config"],
        network_name=options["network"],
        image_size=options["image_size"],
        pixels=options["pixels"],
        average=options["average"],
    )
    settings = FeatureSettings(
        precision=named_precision(options["precision"], options["device"]),
        device=options["device"],
        workers=options["cpu_workers"],
        limits=options["limits"],
        cache=cache_directory(options["cache_dir"]),
    )
    if settings.cache is not None:
        check_writable(settings.cache)
    return data, backbones, settings


def open_heads(
    options: Mapping[str, Any],
) -> tuple[HeadEvaluation, list[EvaluatedModel], HeadSettings]:
    """As `open_features`, for a protocol that uses the captioning head."""
    _check_predictions(options["predictions"], options["checkpoints"], options.get("output"))
    evaluation = _head_evaluation(options)
    check_images(evaluation.paths, options["on_bad_image"])
    models = open_models(
        options["checkpoints"],
        config=options["config"],
        tokenizer=options["tokenizer"],
        limits=options["limits"],
        pixels=options["pixels"],
        average=options["average"],
    )
    settings = HeadSettings(
        precision=_head_precision(options["precision"], options["device"]),
        device=options["device"],
        batch_size=options["batch_size"],
        workers=options["cpu_workers"],
        on_bad_image=options["on_bad_image"],
    )
    return evaluation, models, settings


def _head_evaluation(options: Mapping[str, Any]) -> HeadEvaluation:
    data, seed = options["data"], options["seed"]
    match options["protocol"]:
        case "captioning":
            return open_captioning(
                data, tokenize=options["tokenize"], predictions=options["predictions"]
            )
        case "zero-shot":
            return open_zero_shot(
                data,
                templates=options["template"] or DEFAULT_TEMPLATES,
                class_names=options["class_names"],
                seed=seed,
            )
        case _:
            return open_retrieval(data, pairs=options["pairs"], seed=seed)


def open_scene_models(
    options: Mapping[str, Any],
) -> tuple[list[tuple[str, Pretrained]], SceneSettings]:
    """The names and models of the checkpoints, as `open_features`, for scenes."""
    models = open_scenes(
        options["data"],
        options["checkpoints"],
        config=options["config"],
        tokenizer=options["tokenizer"],
        images=options["images"],
    )
    precision = _head_precision(options["precision"], options["device"])
    return models, SceneSettings(precision, options["device"], options["cpu_workers"])


def _head_precision(name: PrecisionName, device: torch.device) -> Precision:
    """The precision of a captioning head: auto is float32 on every device.

    Differences of likelihoods are small beside the likelihoods.
    """
    return named_precision("float32" if name == "auto" else name, device)


def _check_predictions(
    path: Path | None, checkpoints: Sequence[str], output: Path | None = None
) -> None:
    """Raise `UserError` if the captions of the checkpoints cannot be written to a file."""
    if path is None:
        return
    if len(checkpoints) > 1:
        raise UserError("--predictions is for the captions of one model; give one --checkpoint")
    if path.is_dir():
        raise UserError(f"--predictions {path} is a directory; name a file in it")
    if output is not None and path.resolve() == output.resolve():
        raise UserError(f"--predictions {path} is also the --output; name another file")
    check_writable(path.absolute().parent)

"""The evaluation of checkpoints by any protocol, as a function."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from virtex.data.images import ImageLimits, OnBadImage, named_limits
from virtex.data.shards.store import cache_directory
from virtex.errors import UserError
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.captioning import open_captioning
from virtex.evaluation.evaluate import Engine, evaluate_backbones, open_evaluation
from virtex.evaluation.features import FeatureSettings, check_images
from virtex.evaluation.heads import HeadEvaluation, HeadSettings, evaluate_heads, open_models
from virtex.evaluation.options import DEFAULTS, FEATURES, HEADS, check_options
from virtex.evaluation.results import Result
from virtex.evaluation.retrieval import open_retrieval
from virtex.evaluation.scenes import SceneSettings, evaluate_scenes, open_scenes
from virtex.evaluation.zero_shot import DEFAULT_TEMPLATES, open_zero_shot
from virtex.files import check_writable
from virtex.metrics.tokenizers import TokenizerName
from virtex.training.precision import Precision, named_precision

PrecisionName = Literal["auto", "float32", "bfloat16"]


def evaluate(
    protocol: str,
    data: str | Path,
    checkpoints: str | Path | Sequence[str | Path],
    *,
    config: str | Path | None = None,
    network: str | None = None,
    image_size: int | None = None,
    device: str | torch.device = "cpu",
    precision: PrecisionName = "auto",
    cpu_workers: int = 0,
    seed: int | None = None,
    engine: Engine | None = None,
    on_bad_image: OnBadImage | None = None,
    max_pixels: int | None = None,
    max_image_mb: int | None = None,
    pixel_range: tuple[float, float] | Literal["percentiles"] | None = None,
    dicom_window: tuple[float, float] | Literal["file", "none"] | None = None,
    dicom_frame: Literal["error", "first", "middle"] | None = None,
    cache_dir: str | Path | None = None,
    tokenizer: str | Path | None = None,
    batch_size: int | None = None,
    tokenize: TokenizerName | None = None,
    predictions: str | Path | None = None,
    template: str | Sequence[str] | None = None,
    class_names: str | Path | None = None,
    pairs: int | None = None,
    images: int | None = None,
) -> list[Result]:
    """The results of checkpoints, as `virtex evaluate` prints them.

    Protocols on frozen features also take the names `random` and `torchvision`. Writes no file but
    those of the cache and `predictions`. Arguments are those of the command, also which protocol
    has which; raises `UserError`.
    """
    given = {name: value for name, value in locals().items() if value is not None}
    check_options(protocol, given, flags=False)
    options = {**DEFAULTS, **given}
    several = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    names = [str(name) for name in several]
    for name in ("data", "config", "cache_dir", "tokenizer", "predictions", "class_names"):
        options[name] = Path(options[name]) if name in given else None
    options["device"] = torch.device(device)
    options["limits"] = named_limits(
        max_pixels,
        max_image_mb,
        settings=("max_pixels of virtex.evaluate", "max_image_mb of virtex.evaluate"),
    )
    options["pixels"] = {
        name: options.get(name) for name in ("pixel_range", "dicom_window", "dicom_frame")
    }
    options["template"] = [template] if isinstance(template, str) else template
    if protocol in FEATURES:
        found = _of_features(names, options)
    elif protocol in HEADS:
        found = _of_heads(names, options)
    else:
        found = _of_scenes(names, options)
    return [result for results in found for result in results]


def open_heads(protocol: str, data: Path, options: dict[str, Any]) -> HeadEvaluation:
    """The images of a protocol that uses the captioning head; raises `UserError`.

    `options` are those of the protocol, with their defaults.
    """
    match protocol:
        case "captioning":
            return open_captioning(
                data, tokenize=options["tokenize"], predictions=options["predictions"]
            )
        case "zero-shot":
            return open_zero_shot(
                data,
                templates=options["template"] or DEFAULT_TEMPLATES,
                class_names=options["class_names"],
                seed=options["seed"],
            )
        case _:
            return open_retrieval(data, pairs=options["pairs"], seed=options["seed"])


def head_precision(name: PrecisionName, device: torch.device) -> Precision:
    """The precision of a captioning head: auto is float32 on every device.

    Differences of likelihoods are small beside the likelihoods.
    """
    return named_precision("float32" if name == "auto" else name, device)


def check_predictions(
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


def _of_features(names: Sequence[str], options: dict[str, Any]) -> Iterator[list[Result]]:
    protocol, seed = options["protocol"], options["seed"]
    opened = open_evaluation(protocol, options["data"], seed=seed, engine=options["engine"])
    backbones = open_backbones(
        names,
        config=options["config"],
        network_name=options.get("network"),
        image_size=options.get("image_size"),
        pixels=options["pixels"],
    )
    settings = FeatureSettings(
        precision=named_precision(options["precision"], options["device"]),
        device=options["device"],
        workers=options["cpu_workers"],
        limits=options["limits"],
        cache=cache_directory(options["cache_dir"]),
    )
    return evaluate_backbones(
        protocol, opened, backbones, settings, seed=seed, on_bad_image=options["on_bad_image"]
    )


def _of_heads(names: Sequence[str], options: dict[str, Any]) -> Iterator[list[Result]]:
    protocol, limits = options["protocol"], options["limits"]
    assert isinstance(limits, ImageLimits)
    check_predictions(options["predictions"], names)
    opened = open_heads(protocol, options["data"], options)
    check_images(opened.paths, options["on_bad_image"])
    models = open_models(
        names,
        config=options["config"],
        tokenizer=options["tokenizer"],
        limits=limits,
        pixels=options["pixels"],
    )
    settings = HeadSettings(
        precision=head_precision(options["precision"], options["device"]),
        device=options["device"],
        batch_size=options["batch_size"],
        workers=options["cpu_workers"],
        on_bad_image=options["on_bad_image"],
    )
    found = evaluate_heads(protocol, opened, models, settings, seed=options["seed"])
    return (results for _, results in found)


def _of_scenes(names: Sequence[str], options: dict[str, Any]) -> Iterator[list[Result]]:
    opened = open_scenes(
        options["data"],
        names,
        config=options["config"],
        tokenizer=options["tokenizer"],
        images=options["images"],
    )
    settings = SceneSettings(
        head_precision(options["precision"], options["device"]),
        options["device"],
        options["cpu_workers"],
    )
    for name, model in opened:
        yield evaluate_scenes(name, model, options["data"], options["images"], settings).results

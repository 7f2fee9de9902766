"""The evaluation of checkpoints by any protocol, as a function."""

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args

import torch

from virtex.data.images import ImageLimits, OnBadImage, named_limits
from virtex.data.shards.store import cache_directory
from virtex.errors import UserError
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.captioning import open_captioning
from virtex.evaluation.dense.detection_job import DetectorName
from virtex.evaluation.dense.evaluate import open_dense
from virtex.evaluation.dense.options import DenseOptions
from virtex.evaluation.evaluate import Engine, evaluate_backbones, open_evaluation
from virtex.evaluation.features import FeatureSettings, check_images
from virtex.evaluation.heads import HeadEvaluation, HeadSettings, evaluate_heads, open_models
from virtex.evaluation.options import DENSE, FEATURES, HEADS, check_options, defaults_of
from virtex.evaluation.results import Result
from virtex.evaluation.retrieval import open_retrieval
from virtex.evaluation.scenes import SceneSettings, evaluate_scenes, open_scenes
from virtex.evaluation.zero_shot import DEFAULT_TEMPLATES, open_zero_shot
from virtex.files import check_writable
from virtex.metrics.tokenizers import TokenizerName
from virtex.training.precision import Precision, PrecisionName, named_precision

_LEAST = {
    "image_size": 1,
    "processes": 1,
    "cpu_workers": 0,
    "seed": 0,
    "max_pixels": 1,
    "max_image_mb": 1,
    "batch_size": 1,
    "pairs": 1,
    "images": 1,
    "iterations": 1,
    "save_every": 1,
    "min_size": 1,
    "max_size": 1,
    "pyramid_channels": 1,
}
"""The smallest values of arguments that are integers."""
_CHOICES = {
    "precision": get_args(PrecisionName),
    "engine": get_args(Engine),
    "on_bad_image": get_args(OnBadImage),
    "tokenize": get_args(TokenizerName),
    "detector": get_args(DetectorName),
}
_PATHS = (
    *("data", "config", "cache_dir", "tokenizer", "predictions", "class_names"),
    *("work_dir", "mask_classes"),
)


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
    cache_dir: str | Path | None = None,
    tokenizer: str | Path | None = None,
    batch_size: int | None = None,
    tokenize: TokenizerName | None = None,
    predictions: str | Path | None = None,
    template: str | Sequence[str] | None = None,
    class_names: str | Path | None = None,
    pairs: int | None = None,
    images: int | None = None,
    processes: int | None = None,
    iterations: int | None = None,
    learning_rate: float | None = None,
    work_dir: str | Path | None = None,
    save_every: int | None = None,
    resume: bool = False,
    detector: DetectorName | None = None,
    frozen: bool = False,
    min_size: int | None = None,
    max_size: int | None = None,
    pyramid_channels: int | None = None,
    mask_classes: str | Path | None = None,
) -> list[Result]:
    """The results of checkpoints, as `virtex evaluate` prints them.

    Protocols on backbones also take the names `random` and `torchvision`. Arguments are those of
    the command, also which protocol has which, but only detection has `processes`. Writes the
    files of the cache and `predictions`, and of a detection or linear segmentation those below
    `work_dir`; no results. The state of torch's random numbers stays as it is.

    Raises `UserError`. Detection and linear segmentation can be interrupted (SIGINT, SIGTERM,
    SIGUSR1) in the main thread: they save, and raise `Stopped`, and `resume` continues them.
    """
    arguments = locals()
    given = {name: value for name, value in arguments.items() if value is not None}
    check_options(protocol, given, flags=False)
    _check_values(protocol, given)
    several = [checkpoints] if isinstance(checkpoints, str | Path) else checkpoints
    names = [str(name) for name in several]
    options = {**arguments, **defaults_of(protocol), **given, "checkpoints": names}
    for name in _PATHS:
        options[name] = Path(options[name]) if name in given else None
    options["device"] = device = torch.device(device)
    options["limits"] = named_limits(
        max_pixels,
        max_image_mb,
        settings=("max_pixels of virtex.evaluate", "max_image_mb of virtex.evaluate"),
    )
    options["template"] = [template] if isinstance(template, str) else template
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return [result for results in _results(names, options) for result in results]


def _results(names: Sequence[str], options: dict[str, Any]) -> Iterator[list[Result]]:
    protocol = options["protocol"]
    if protocol in FEATURES:
        return _of_features(names, options)
    if protocol in HEADS:
        return _of_heads(names, options)
    if protocol in DENSE:
        return open_dense(protocol, DenseOptions.select(options)).results()
    return _of_scenes(names, options)


def _check_values(protocol: str, given: Mapping[str, Any]) -> None:
    """Raise `UserError` for values that the flags of the command do not take either."""
    problems = [
        f"{name} is {given[name]!r}; expected an integer of at least {least}"
        for name, least in _LEAST.items()
        if name in given and not (isinstance(given[name], Integral) and given[name] >= least)
    ]
    problems += [
        f"{name} is {given[name]!r}; expected {' or '.join(map(repr, known))}"
        for name, known in _CHOICES.items()
        if name in given and given[name] not in known
    ]
    rate = given.get("learning_rate", 1.0)
    if not (isinstance(rate, Real) and math.isfinite(rate) and float(rate) > 0):
        problems.append(f"learning_rate is {rate!r}; expected a positive number")
    if protocol in FEATURES and given.get("processes", 1) != 1:
        problems.append(
            f"processes is {given['processes']!r}: in Python {protocol} runs in one process; "
            f"start `virtex evaluate {protocol} --processes {given['processes']}` instead"
        )
    if problems:
        raise UserError("; ".join(problems))


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
        names, config=options["config"], tokenizer=options["tokenizer"], limits=limits
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

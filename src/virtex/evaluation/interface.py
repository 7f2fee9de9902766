"""The evaluation of checkpoints by any protocol, as a function."""

import math
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from virtex.data.images import OnBadImage, named_limits
from virtex.errors import UserError
from virtex.evaluation.dense.detection_job import DetectorName
from virtex.evaluation.dense.evaluate import open_dense
from virtex.evaluation.dense.options import DenseOptions
from virtex.evaluation.evaluate import Engine, evaluate_backbones
from virtex.evaluation.heads import evaluate_heads
from virtex.evaluation.opening import open_features, open_heads, open_scene_models
from virtex.evaluation.options import DENSE, FEATURES, HEADS, check_options, defaults_of
from virtex.evaluation.results import Result
from virtex.evaluation.scenes import evaluate_scenes
from virtex.metrics.tokenizers import TokenizerName
from virtex.training.precision import PrecisionName

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
    average: bool = False,
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
    options = {**arguments, **defaults_of(protocol), **given}
    options["checkpoints"] = [str(name) for name in several]
    for name in _PATHS:
        options[name] = Path(options[name]) if name in given else None
    options["device"] = device = torch.device(device)
    options["limits"] = named_limits(
        max_pixels,
        max_image_mb,
        settings=("max_pixels of virtex.evaluate", "max_image_mb of virtex.evaluate"),
    )
    options["pixels"] = {
        name: options.get(name) for name in ("pixel_range", "dicom_window", "dicom_frame")
    }
    options["template"] = [template] if isinstance(template, str) else template
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return [result for results in _results(options) for result in results]


def _results(options: Mapping[str, Any]) -> Iterator[list[Result]]:
    protocol, seed = options["protocol"], options["seed"]
    if protocol in FEATURES:
        data, backbones, settings = open_features(options)
        on_bad_image = options["on_bad_image"]
        return evaluate_backbones(
            protocol, data, backbones, settings, seed=seed, on_bad_image=on_bad_image
        )
    if protocol in HEADS:
        evaluation, models, head_settings = open_heads(options)
        found = evaluate_heads(protocol, evaluation, models, head_settings, seed=seed)
        return (results for _, results in found)
    if protocol in DENSE:
        return open_dense(protocol, DenseOptions.select(options)).results()
    scene_models, scene_settings = open_scene_models(options)
    return (
        evaluate_scenes(name, model, options["data"], options["images"], scene_settings).results
        for name, model in scene_models
    )


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
    device, gpus = torch.device(given["device"]), torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        problems.append(f"device is {str(device)!r}, but this machine has {gpus} GPUs")
    if problems:
        raise UserError("; ".join(problems))

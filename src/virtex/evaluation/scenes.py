"""Evaluation on synthetic scenes: the truth of captions, and the accuracy of features."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from virtex.build.model import build_backbone
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.labelled import read_labelled
from virtex.errors import UserError
from virtex.evaluation.backbones import RANDOM, TORCHVISION, check_distinct, weights_hash
from virtex.evaluation.features import (
    FeatureSettings,
    data_hash,
    pooled_features,
)
from virtex.evaluation.figures import Figure
from virtex.evaluation.heads import EvaluatedModel
from virtex.evaluation.linear_probe import linear_probe_accuracy
from virtex.evaluation.options import naming_options
from virtex.evaluation.preprocessing import Preprocessing, center_crops
from virtex.evaluation.results import Result, to_results
from virtex.files import write_whole
from virtex.inference.pretrained import Pretrained, load
from virtex.models.first_convolution import RGB
from virtex.plots.contact_sheet import contact_sheet
from virtex.synthetic.coco_tree import read_objects
from virtex.synthetic.reading import is_true, is_true_in_pairs
from virtex.training.precision import Precision

ON_SHEET = 24
_BATCH = 50


@dataclass(frozen=True)
class CaptionedScene:
    """A held-out scene, the model's caption for it, and whether the caption is true.

    `true` if every shape and every colour that it states is in the image, `true_in_pairs` if every
    shape has the colour that it states.
    """

    path: str
    caption: str
    score: float
    objects: tuple[str, ...]
    true: bool
    true_in_pairs: bool


@dataclass(frozen=True)
class Features:
    """The accuracy of linear classifiers of shapes on the features of two backbones."""

    pretrained: float
    random: float
    classes: int


@dataclass(frozen=True)
class SceneSettings:
    """How models are run; `workers` processes read the images of the features."""

    precision: Precision
    device: torch.device
    workers: int = 0


@dataclass(frozen=True)
class EvaluatedScenes:
    """What the evaluation of a model has found; `captioned` is None without a captioning head."""

    captioned: list[CaptionedScene] | None
    features: Features
    results: list[Result]


Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
"""Maps a label and a number of images, if it is known, to a context that counts images."""


def open_scenes(
    scenes: Path,
    checkpoints: Sequence[str],
    *,
    config: Path | None,
    tokenizer: Path | None,
    images: int,
) -> list[tuple[str, Pretrained]]:
    """The names and models of checkpoints; raises `UserError`, also for scenes that do not fit."""
    check_distinct(checkpoints)
    for name in checkpoints:
        if name in (RANDOM, TORCHVISION):
            raise UserError(
                f"--checkpoint {name}: scenes needs the checkpoint of a run, which it also "
                "compares with random weights"
            )
    with naming_options():
        read_labelled(scenes / "imagefolder")
    models = [(name, load(name, config=config, tokenizer=tokenizer)) for name in checkpoints]
    for name, model in models:
        if (bands := model.config.data.band_count) != RGB:
            raise UserError(f"--checkpoint {name} is for images with {bands} bands; scenes are RGB")
    if any(model.can_caption for _, model in models):
        with naming_options():
            _held_out(scenes, images)
    return models


def evaluate_scenes(
    name: str,
    pretrained: Pretrained,
    scenes: Path,
    images: int,
    settings: SceneSettings,
    progress: Progress = lambda *_: nullcontext(lambda _: None),
) -> EvaluatedScenes:
    """Evaluate captions, if the model's task has them, and features; `name` is its path."""
    pretrained.to(settings.device)
    captioned = None
    if pretrained.can_caption:
        with progress("captions", images) as advance, settings.precision.autocast():
            captioned = caption_scenes(pretrained, scenes, images, advance)
    with progress("features", None) as advance:
        features = compare_features(pretrained, scenes, advance, settings)
    pretrained.to("cpu")
    results = scene_results(pretrained, scenes, captioned, features, settings, name=name)
    return EvaluatedScenes(captioned, features, results)


def _held_out(scenes: Path, count: int) -> CocoCaptions:
    records = CocoCaptions(scenes, "val")
    if not 0 < count <= len(records):
        raise UserError(f"--images {count}: {scenes} has only {len(records)} held-out scenes")
    return records


def caption_scenes(
    pretrained: Pretrained, scenes: Path, count: int, advance: Callable[[int], None]
) -> list[CaptionedScene]:
    """Caption the first `count` held-out scenes; raises `UserError` if there are fewer.

    `advance` counts scenes.
    """
    records = _held_out(scenes, count)
    objects = read_objects(scenes / "annotations" / "instances_val2017.json")
    captioner = pretrained.captioner()
    captioned = []
    for first in range(0, count, _BATCH):
        batch = [records[index] for index in range(first, min(first + _BATCH, count))]
        size = pretrained.config.data.image_crop_size
        images = center_crops([record.image for record in batch], size)
        keys = [record.image_id for record in batch]
        found = captioner.caption(images.to(pretrained.device), keys)
        for record, captions in zip(batch, found, strict=True):
            text, score = captions[0].text, captions[0].score
            truth = objects[record.image_id]
            captioned.append(
                CaptionedScene(
                    path=str(record.image),
                    caption=text,
                    score=score,
                    objects=tuple(" ".join(pair) for pair in truth),
                    true=is_true(text, truth),
                    true_in_pairs=is_true_in_pairs(text, truth),
                )
            )
        advance(len(batch))
    return captioned


def compare_features(
    pretrained: Pretrained,
    scenes: Path,
    advance: Callable[[int], None],
    settings: SceneSettings,
) -> Features:
    """Train linear classifiers of shapes on the features of the backbone and of a random one.

    `advance` counts images, each once per backbone.
    """
    data = read_labelled(scenes / "imagefolder")
    torch.manual_seed(pretrained.config.random_seed)
    random = build_backbone(pretrained.config, weights_follow=True)
    size = pretrained.config.data.image_crop_size
    crop = Preprocessing.resize_and_crop(size, size)
    common = FeatureSettings(settings.precision, settings.device, settings.workers)

    def accuracy(backbone: torch.nn.Module) -> float:
        splits = [
            pooled_features(backbone, images.paths, crop, common, advance)
            for images in (data.train, data.test)
        ]
        return linear_probe_accuracy(
            splits[0].values,
            torch.from_numpy(data.train.labels),
            splits[1].values,
            torch.from_numpy(data.test.labels),
        )

    return Features(
        pretrained=accuracy(pretrained.objective.visual),
        random=accuracy(random),
        classes=len(data.classes),
    )


def shares_true(captioned: Sequence[CaptionedScene]) -> tuple[float, float]:
    """The shares of captions that are true, and true in pairs of shape and colour."""
    true = sum(scene.true for scene in captioned) / len(captioned)
    in_pairs = sum(scene.true_in_pairs for scene in captioned) / len(captioned)
    return true, in_pairs


def scene_results(
    pretrained: Pretrained,
    scenes: Path,
    captioned: Sequence[CaptionedScene] | None,
    features: Features,
    run: SceneSettings,
    *,
    name: str,
) -> list[Result]:
    """The figures in percent, in the form of every protocol; `name` is the checkpoint's path."""
    data = read_labelled(scenes / "imagefolder")
    labels = np.concatenate([data.train.labels, data.test.labels])
    values = {
        "shapes_top1": features.pretrained,
        "random_shapes_top1": features.random,
    }
    settings: dict[str, object] = {
        "image_size": pretrained.config.data.image_crop_size,
        "precision": run.precision.name,
    }
    if captioned is not None:
        true, in_pairs = shares_true(captioned)
        values = {"captions_true": true, "captions_true_in_pairs": in_pairs, **values}
        settings["captions"] = len(captioned)
    return to_results(
        [Figure(metric, 100 * value) for metric, value in values.items()],
        "scenes",
        EvaluatedModel(name, pretrained, weights_hash(pretrained.objective.state_dict())),
        data=data_hash(scenes, (*data.train.paths, *data.test.paths), labels),
        root=scenes,
        seed=pretrained.config.random_seed,
        settings=settings,
    )


def write_report(
    captioned: Sequence[CaptionedScene] | None, features: Features, output: Path
) -> str:
    """Write `results.json` and, for captions, `captions.jsonl` and `captions.png`; return a table.

    In `captions.png` a caption is marked as wrong unless each shape has the colour stated.
    """
    results: dict[str, float] = {}
    rows: list[tuple[str, str]] = []
    if captioned is not None:
        _write_captions(captioned, output)
        true, in_pairs = shares_true(captioned)
        results |= {"scenes": len(captioned), "true": true, "true_in_pairs": in_pairs}
        rows += [
            (f"captions of {len(captioned)} held-out scenes", ""),
            ("  every stated shape and colour is in the image", f"{true:.1%}"),
            ("  … and each shape has the colour stated", f"{in_pairs:.1%}"),
        ]
    results |= {f"linear_classifier_{name}": value for name, value in asdict(features).items()}
    write_whole(output / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    rows += [
        (f"linear classifier of {features.classes} shapes, frozen features", ""),
        ("  pretrained backbone", f"{features.pretrained:.1%}"),
        ("  the same with random weights", f"{features.random:.1%}"),
    ]
    return "\n".join(f"{label:<52}{value:>8}" for label, value in rows)


def _write_captions(captioned: Sequence[CaptionedScene], output: Path) -> None:
    lines = [json.dumps(asdict(scene)) + "\n" for scene in captioned]
    write_whole(output / "captions.jsonl", "".join(lines).encode())
    shown = captioned[:ON_SHEET]
    crops = [center_crops([Path(scene.path)], 64)[0].permute(1, 2, 0).numpy() for scene in shown]
    texts = [f"{'' if scene.true_in_pairs else 'WRONG: '}{scene.caption}" for scene in shown]
    Image.fromarray(contact_sheet(crops, texts, columns=6)).save(output / "captions.png")

"""Evaluation on synthetic scenes: are captions true of their images, and do features help?"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image

from virtex.build.model import build_backbone
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.image_folder import image_folder
from virtex.errors import UserError
from virtex.evaluation.features import center_crops, pooled_features
from virtex.evaluation.linear_probe import linear_probe_accuracy
from virtex.inference.pretrained import Pretrained
from virtex.plots.contact_sheet import contact_sheet
from virtex.synthetic.coco_tree import read_objects
from virtex.synthetic.reading import is_true, is_true_in_pairs

ON_SHEET = 24
_BATCH = 50


@dataclass(frozen=True)
class CaptionedScene:
    """A held-out scene, the model's caption for it, and whether the caption is true.

    `true`: every stated shape and colour is in the image; `true_in_pairs`: so is every stated pair.
    """

    path: str
    caption: str
    score: float
    objects: tuple[str, ...]
    true: bool
    true_in_pairs: bool


@dataclass(frozen=True)
class Features:
    """Accuracies of linear classifiers of shapes on the features of two backbones."""

    pretrained: float
    random: float
    classes: int


def caption_scenes(
    pretrained: Pretrained, scenes: Path, count: int, advance: Callable[[int], None]
) -> list[CaptionedScene]:
    """The first `count` held-out scenes with captions; raises `UserError` if there are fewer.

    `advance` counts scenes as they are captioned.
    """
    records = CocoCaptions(scenes, "val")
    if not 0 < count <= len(records):
        raise UserError(f"--images {count}: {scenes} holds {len(records)} held-out scenes")
    objects = read_objects(scenes / "annotations" / "instances_val2017.json")
    captioner = pretrained.captioner()
    captioned = []
    for first in range(0, count, _BATCH):
        batch = [records[index] for index in range(first, min(first + _BATCH, count))]
        size = pretrained.config.data.image_crop_size
        images = center_crops([record.image for record in batch], size)
        found = captioner.caption(images, [record.image_id for record in batch])
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
    pretrained: Pretrained, scenes: Path, advance: Callable[[int], None]
) -> Features:
    """Linear classifiers of single shapes, on the backbone and on one of the same initial weights'
    distribution; `advance` counts images as their features are computed."""
    train = image_folder(scenes / "imagefolder" / "train")
    test = image_folder(scenes / "imagefolder" / "val")
    torch.manual_seed(pretrained.config.random_seed)
    random = build_backbone(pretrained.config, weights_follow=True)

    def accuracy(backbone: torch.nn.Module) -> float:
        size = pretrained.config.data.image_crop_size
        return linear_probe_accuracy(
            pooled_features(backbone, train.paths, size, advance),
            torch.tensor(train.labels),
            pooled_features(backbone, test.paths, size, advance),
            torch.tensor(test.labels),
        )

    return Features(
        pretrained=accuracy(pretrained.objective.visual),
        random=accuracy(random),
        classes=len(train.classes),
    )


def write_report(
    captioned: Sequence[CaptionedScene] | None, features: Features, output: Path
) -> str:
    """Write `results.json` and, for captioned scenes, `captions.jsonl` and `captions.png`; returns
    the table for the console.

    In `captions.png` a caption is marked as wrong unless each shape has the colour stated.
    """
    output.mkdir(parents=True, exist_ok=True)
    results: dict[str, float] = {}
    rows: list[tuple[str, str]] = []
    if captioned is not None:
        _write_captions(captioned, output)
        true = sum(scene.true for scene in captioned) / len(captioned)
        in_pairs = sum(scene.true_in_pairs for scene in captioned) / len(captioned)
        results |= {"scenes": len(captioned), "true": true, "true_in_pairs": in_pairs}
        rows += [
            (f"captions of {len(captioned)} held-out scenes", ""),
            ("  every stated shape and colour is in the image", f"{true:.1%}"),
            ("  … and each shape has the colour stated", f"{in_pairs:.1%}"),
        ]
    results |= {f"linear_classifier_{name}": value for name, value in asdict(features).items()}
    (output / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    rows += [
        (f"linear classifier of {features.classes} shapes, frozen features", ""),
        ("  pretrained backbone", f"{features.pretrained:.1%}"),
        ("  the same with random weights", f"{features.random:.1%}"),
    ]
    return "\n".join(f"{label:<52}{value:>8}" for label, value in rows)


def _write_captions(captioned: Sequence[CaptionedScene], output: Path) -> None:
    lines = [json.dumps(asdict(scene)) for scene in captioned]
    (output / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shown = captioned[:ON_SHEET]
    crops = [center_crops([Path(scene.path)], 64)[0].permute(1, 2, 0).numpy() for scene in shown]
    texts = [f"{'' if scene.true_in_pairs else 'WRONG: '}{scene.caption}" for scene in shown]
    Image.fromarray(contact_sheet(crops, texts, columns=6)).save(output / "captions.png")

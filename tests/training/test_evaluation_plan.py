"""What a run is refused for before it trains, and what it evaluates by default."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from virtex.build.model import load_config
from virtex.errors import UserError
from virtex.evaluation.features import Features
from virtex.training.evaluation_plan import open_plan


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function of the settings below EVALUATE and other KEY VALUE pairs."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("RANDOM_SEED: 0")

    def load(*others, checkpoint_every=10, **evaluate):
        pairs = {"EVERY": 10} | evaluate
        words = [word for key, value in pairs.items() for word in (f"EVALUATE.{key}", str(value))]
        return load_config(Path("a.yaml"), [*words, *others], checkpoint_every=checkpoint_every)

    return load


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes, 12 training and 2 test images; half of the captions mention a boat."""
    root = tmp_path_factory.mktemp("images")
    rows = {"train": ["image\tcaption"], "val": ["image\tcaption"]}
    for split, count in (("train", 12), ("val", 2)):
        for index in range(count):
            path = root / "classes" / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
    for split in rows:
        for index in range(24):
            path = root / "captioned" / f"{split}_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
            rows[split].append(f"{path.name}\ta {('boat', 'house')[index % 2]} here")
        (root / "captioned" / f"{split}.tsv").write_text("\n".join(rows[split]))
    return root


def table(images):
    return ("DATA.FORMAT", "table", "DATA.ROOT", str(images / "captioned"))


@pytest.mark.parametrize(
    ("evaluate", "others", "message"),
    [
        ({"PROTOCOLS": "[knn]"}, (), "expected labelled images for knn; set DATA"),
        ({"DATA": "x"}, (), "expected labelled images only for knn or linear"),
        ({"PROTOCOLS": "[words, words]"}, (), "expected each protocol once"),
        ({"BEST": "knn/top1"}, (), "'EVALUATE.BEST' is \"'knn/top1'\" on the command line"),
        (
            {},
            ("DATA.FORMAT", "shards"),
            "expected data in the format coco, table or folder for words",
        ),
        (
            {"PROTOCOLS": "[captioning]"},
            ("MODEL.NAME", "masked_lm"),
            "'MODEL.NAME' is 'masked_lm' on the command line and 'EVALUATE.PROTOCOLS' is",
        ),
        ({"EVERY": 15}, (), "'EVALUATE.EVERY' is 15 on the command line; expected a multiple"),
        ({"PROTOCOLS": "[voc07]"}, (), "expected 'knn', 'linear', 'words' or 'captioning'"),
    ],
)
def test_settings_that_do_not_fit_are_named_with_their_origin(load, evaluate, others, message):
    with pytest.raises(UserError) as caught:
        load(*others, **evaluate)
    assert message.replace("\"'", "'").replace("'\"", "'") in str(caught.value)


def test_without_evaluations_their_settings_have_no_effect(load):
    load("DATA.FORMAT", "shards", EVERY=0, PROTOCOLS="[knn, captioning]", checkpoint_every=7)


def test_all_problems_of_the_data_come_at_once(load, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "train.tsv").write_text("image\tcaption\n1.png\ta boat")
    (tmp_path / "val.tsv").write_text("image\tcaption\n2.png\ta boat")
    config = load(
        *("DATA.FORMAT", "table", "DATA.ROOT", str(tmp_path)),
        **{"PROTOCOLS": "[knn, words, captioning]", "DATA": tmp_path / "missing"},
    )
    with pytest.raises(UserError) as caught:
        open_plan(config, tmp_path)
    message = str(caught.value)
    assert message.startswith("4 problems of the evaluation:")
    assert "results.json does not hold the results" in message
    assert f"EVALUATE.DATA: {tmp_path / 'missing'}: no such directory or table" in message
    assert "EVALUATE.PROTOCOLS words: no word is in the captions" in message
    assert "EVALUATE.PROTOCOLS captioning: 1 of 1 images do not exist" in message


def test_the_first_protocol_selects_the_best_by_default(load, images, tmp_path):
    data = images / "classes"
    words = {"PROTOCOLS": "[words, captioning]"}
    assert open_plan(load(*table(images), **words), tmp_path).best == "words/mAP"
    captions = {"PROTOCOLS": "[captioning]"}
    assert open_plan(load(*table(images), **captions), tmp_path).best == "captioning/CIDEr"
    knn = {"PROTOCOLS": "[knn, linear]", "DATA": data}
    plan = open_plan(load(**knn), tmp_path)
    # Of 12 training images, 20 neighbours are too many.
    assert plan.best == "knn/top1_k10"
    assert plan.metrics == (
        *("knn/top1_k10", "knn/balanced_accuracy_k10"),
        *("linear/top1", "linear/balanced_accuracy"),
    )
    assert plan.headlines == ("knn/top1_k10", "linear/top1")


def test_a_metric_that_the_data_do_not_give_is_refused_with_those_they_give(load, images, tmp_path):
    config = load(PROTOCOLS="[linear]", DATA=images / "classes", BEST="linear/mAP")
    with pytest.raises(UserError, match=r"'linear/mAP', which .* linear/top1, linear/balanced"):
        open_plan(config, tmp_path)


def test_metrics_are_those_that_the_protocols_give(load, images, tmp_path):
    """Of random features, as only the names of their figures matter."""
    config = load(*table(images), PROTOCOLS="[knn, linear, words]", DATA=images / "classes")
    plan = open_plan(config, tmp_path)
    found = []
    for protocol, data in plan.backbones.items():
        features = [
            Features(torch.randn(len(paths), 2), np.arange(len(paths)))
            for paths in (data.train, data.test)
        ]
        figures = data.figures(*features, lambda _: None)
        found += [f"{protocol}/{figure.metric}" for figure in figures]
    assert tuple(found) == plan.metrics
    assert json.dumps(plan.report).count("images") == 2


def test_captions_of_all_sources_of_files_are_judged(load, images, tmp_path):
    (tmp_path / "folder").mkdir()
    for split in ("train", "val"):
        (tmp_path / "folder" / split).mkdir()
        for index in range(3):
            path = tmp_path / "folder" / split / f"{index}.png"
            Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
            path.with_suffix(".txt").write_text("a boat there")
    sources = [
        {"FORMAT": "table", "ROOT": str(images / "captioned")},
        {"FORMAT": "shards", "ROOT": "s3://bucket/unread"},
        {"FORMAT": "folder", "ROOT": str(tmp_path / "folder")},
    ]
    config = load("DATA.SOURCES", json.dumps(sources), PROTOCOLS="[words, captioning]")
    plan = open_plan(config, tmp_path)
    single = open_plan(load(*table(images), PROTOCOLS="[words, captioning]"), tmp_path)
    added = {tmp_path / "folder" / "val" / f"{index}.png" for index in range(3)}
    assert set(plan.captioning.paths) == {*single.captioning.paths, *added}
    assert len(plan.backbones["words"].train) == 24 + 3
    assert set(plan.backbones["words"].test) == set(plan.captioning.paths)
    assert "evaluation: images in shards are not judged: s3://bucket/unread" in plan.report
    with pytest.raises(UserError, match=r"'DATA\.SOURCES' is .*expected data in the format coco"):
        load("DATA.SOURCES", json.dumps(sources[1:2]))

"""The published scripts, each by its published flags, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from virtex.build.model import load_config

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("build_vocabulary", "clf_linear", "clf_voc07", "eval_captioning", "eval_detectron2")


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A function that runs a script in an empty directory; gives status, output and errors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()

    def run(name, *words):
        command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, words)]
        done = subprocess.run(
            command, cwd=tmp_path / "work", capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def labelled(pictures):
    """A directory of two classes with three training and three test images each."""
    root = pictures.parent / "labelled"
    files = sorted(pictures.iterdir())
    for label, images in (("cat", files[:3]), ("dog", files[2:])):
        for split in ("train", "val"):
            directory = root / split / label
            directory.mkdir(parents=True)
            for image in images:
                (directory / image.name).write_bytes(image.read_bytes())
    return root


@pytest.mark.parametrize("name", [*NAMES, "pretrain_virtex"])
def test_help_names_the_published_flags(script, name):
    status, out, error = script(name, "--help")
    assert (status, error) == (0, "")
    flag = {"build_vocabulary": "--output-prefix", "eval_detectron2": "virtex evaluate detection"}
    assert flag.get(name, "--config") in out


def test_a_vocabulary(script, tmp_path):
    captions = tmp_path / "captions_train2017.json"
    texts = [f"A red car left of {number} blue houses" for number in range(20)]
    annotations = [
        {"id": i, "image_id": i, "caption": text} for i, text in enumerate(texts, start=1)
    ]
    captions.write_text(json.dumps({"annotations": annotations}))
    words = ("-c", captions, "--vocab-size", 60, "-o", tmp_path / "vocab" / "coco", "-l")
    status, _, error = script("build_vocabulary", *words)
    assert status == 0, error
    assert (tmp_path / "vocab" / "coco.model").exists()


def test_captions_and_their_scores(script, captioning_model, pictures, tmp_path):
    (pictures / "a b.png").write_bytes((pictures / "0.png").read_bytes())
    output = tmp_path / "out" / "predictions.json"
    words = ("--data-root", pictures, "--checkpoint-path", captioning_model, "--output", output)
    status, out, error = script("eval_captioning", *words)
    assert status == 0, error
    found = json.loads(output.read_text())
    assert [entry["image_id"] for entry in found] == [0, 1, 2, 3, 4, "a b"]
    assert all(entry.keys() == {"image_id", "caption"} for entry in found)
    assert found[0]["caption"] == found[-1]["caption"]

    (pictures / "a b.png").unlink()
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    pictures.rename(coco / "val2017")
    truth = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(5)],
        "annotations": [
            {"id": i, "image_id": i, "caption": "a red square and a star"} for i in range(5)
        ],
    }
    (coco / "annotations" / "captions_val2017.json").write_text(json.dumps(truth))
    config = tmp_path / "pretrain_config.yaml"
    text = (captioning_model.parent / "model.yaml").read_text(encoding="utf-8")
    config.write_text(text.replace("{VOCAB_SIZE", f"{{ROOT: {coco}, VOCAB_SIZE"), encoding="utf-8")
    words = ("--config", config, "--checkpoint-path", captioning_model, "--calc-metrics")
    status, out, error = script("eval_captioning", *words, "--cpu-workers", 1)
    assert status == 0, error
    assert "CIDEr" in out


def test_svms_on_frozen_features(script, label_model, labelled, tmp_path):
    down = tmp_path / "voc07_clf.yaml"
    down.write_text(f"DATA: {{ROOT: {labelled}}}\nOPTIM: {{BATCH_SIZE: 128}}")
    words = ("--down-config", down, "--checkpoint-path", label_model, "--weight-init", "virtex")
    status, out, error = script("clf_voc07", *words, "--serialization-dir", tmp_path / "voc")
    assert status == 0, error
    assert "mAP" in out
    results = json.loads((tmp_path / "voc" / "results.json").read_text())
    assert {record["protocol"] for record in results} == {"voc07"}


RELEASE_1_2 = """
AMP: false
DATA:
  ROOT: datasets/imagenet
  IMAGE_TRANSFORM_TRAIN: ["random_resized_crop::{'scale': (0.08, 1.0)}", horizontal_flip, normalize]
MODEL: {VISUAL: {FROZEN: true}}
OPTIM:
  {BATCH_SIZE: 256, WEIGHT_DECAY: 0.0, NO_DECAY: none, LOOKAHEAD: {USE: false}, LR: 0.3,
  WARMUP_STEPS: 0, LR_DECAY_NAME: cosine, NUM_ITERATIONS: 500500}
"""


def test_a_linear_classifier_by_a_published_file(script, label_model, labelled, tmp_path):
    (tmp_path / "imagenet_clf.yaml").write_text(RELEASE_1_2)
    overrides = ("DATA.ROOT", labelled, "DATA.IMAGE_CROP_SIZE", 32)
    overrides += ("OPTIM.NUM_ITERATIONS", 2, "OPTIM.BATCH_SIZE", 4)
    words = ("--down-config", tmp_path / "imagenet_clf.yaml", "--log-every", 1)
    words += ("--down-config-override", *overrides, "--checkpoint-path", label_model)
    status, out, error = script("clf_linear", *words, "--serialization-dir", tmp_path / "linear")
    assert status == 0, error
    assert "top1" in out
    assert (tmp_path / "linear" / "checkpoint_2.pth").exists()
    config = load_config(tmp_path / "linear" / "config.yaml")
    assert (config.model.visual.frozen, config.optim.clip_grad_norm) == (True, 1e9)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("eval_captioning", (), "--checkpoint-path is required"),
        ("eval_captioning", ("--config-override", "AMP", "no"), "the YAML file of --config"),
        ("clf_voc07", ("--down-config", "none.yaml"), "--checkpoint-path is required"),
        (
            "clf_linear",
            ("--down-config", "none.yaml", "--weight-init", "random"),
            "none.yaml does not exist",
        ),
        ("eval_detectron2", ("--d2-config", "coco.yaml"), "virtex evaluate detection"),
    ],
)
def test_what_no_longer_applies_is_refused_with_its_remedy(script, name, words, message):
    status, _, error = script(name, *words)
    assert status == 2
    assert message in error

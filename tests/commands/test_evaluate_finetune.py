"""`virtex evaluate finetune`: what it refuses, what it starts from, and what it leaves."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.commands.conftest import picture

from virtex.cli import main
from virtex.evaluation.backbones import open_backbones
from virtex.inference.pretrained import load
from virtex.text.vocabulary import Classes

CONFIGS = Path(__file__).parents[2] / "src" / "virtex" / "configs"
RANDOM = ("--checkpoint", "random", "--network", "torchvision::resnet18", "--image-size", 32)
SHORT = ("--config-override", "OPTIM.NUM_ITERATIONS", "2", "OPTIM.BATCH_SIZE", "4", "AMP", "false")


def draw(directory):
    """Two classes of five training and three test images."""
    for split, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            (directory / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = picture(100 * label + 10 * len(split) + index)
                Image.fromarray(pixels).save(directory / split / name / f"{index}.png")


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The directory `images` in the current one."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "images")


def finetune(*words, data="images"):
    words = ("--data", data, "--serialization-dir", "run", *words)
    return main(["evaluate", "finetune", *map(str, words)])


def rename(before, after):
    Path("images", before).rename(Path("images", after))


def captions_alone():
    shutil.rmtree("images/train")
    Path("images/train.csv").write_text("image,caption\nval/cat/0.png,a cat\n")


def empty_class():
    for image in Path("images/val/dog").iterdir():
        image.unlink()


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (lambda: rename("val/dog", "val/cow"), RANDOM, "1 only in train/ (dog), 1 only in val/"),
        (empty_class, RANDOM, "1 without test images (dog)"),
        (lambda: shutil.rmtree("images/val"), RANDOM, "has train/ but no val/ or test/"),
        (captions_alone, RANDOM, "expected a directory with train/CLASS/IMAGE"),
        (None, ("--checkpoint", "random"), "nothing says which network"),
        (None, ("--checkpoint", "no.pth"), "no.pth"),
        (
            None,
            (*RANDOM, "--config", CONFIGS / "scenes" / "captioning.yaml"),
            "MODEL.NAME is captioning; expected image_classification",
        ),
        (
            None,
            (*RANDOM, "--config-override", "DATA.VOCAB_SIZE", 3),
            "DATA.VOCAB_SIZE: it comes from --data",
        ),
        (None, (*RANDOM, "--epochs", 1, *SHORT), "--epochs sets it too"),
        (None, (*RANDOM, "--config-override", "OPTIM.LEARNING_RATE", 1), "unknown setting"),
        (
            None,
            (*RANDOM, "--config-override", "OPTIM.BATCH_SIZE", 64),
            "larger than the data",
        ),
        (None, (*RANDOM, "--resume-from", "latest"), "run contains no run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.usefixtures("images")
def test_wrong_input_is_one_line_before_any_work(capsys, spoil, words, message):
    if spoil is not None:
        spoil()
    assert finetune(*words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("virtex evaluate finetune: error: ")
    assert message in error
    assert not Path("run").exists()


@pytest.mark.usefixtures("images")
def test_options_before_the_word_are_refused(capsys):
    assert main(["evaluate", "--data", "images", "--checkpoint", "random", "finetune"]) == 2
    assert "put the word finetune first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("downstream/voc07_clf.yaml", ("DATA.FORMAT", "coco"), "with DATA.FORMAT labelled"),
        ("scenes/captioning.yaml", ("DATA.FORMAT", "labelled"), "with DATA.FORMAT labelled"),
    ],
)
def test_labelled_images_and_their_task_belong_together(name, override, message, capsys):
    words = ["pretrain", "--config", str(CONFIGS / name), "--config-override", *override]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "on the command line" in error
    assert error.count("\n") == 1


def records(path="run/results.json"):
    return json.loads(Path(path).read_text())


FROZEN = ("--frozen", *SHORT)


@pytest.fixture(scope="module")
def directory(label_model, tmp_path_factory):
    """A directory with images and a run of a frozen backbone, begun from a checkpoint."""
    directory = tmp_path_factory.mktemp("finetuned")
    draw(directory / "images")
    (directory / "start").mkdir()
    shutil.copy(label_model, directory / "start" / "checkpoint_0.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert finetune("--checkpoint", "start/checkpoint_0.pth", *FROZEN) == 0
    yield directory
    shutil.rmtree(directory)


def test_a_frozen_backbone_is_judged_as_it_was_given(directory, label_model, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    [given] = open_backbones([str(label_model)])
    [trained] = open_backbones(["run/checkpoint_2.pth"])
    assert trained.sha256 == given.sha256
    first, second = records()
    assert {first["checkpoint"], second["checkpoint"]} == {given.sha256}
    assert first["settings"]["frozen"] is True
    assert first["settings"]["iterations"] == 2
    assert first["settings"]["learning_rate"] == 0.3 * 4 / 256
    assert records("start/results.json") == records()
    last = json.loads(Path("run/scalars.jsonl").read_text().splitlines()[-1])
    assert (last["val/top1"], last["val/balanced_accuracy"]) == (first["value"], second["value"])
    model = load("run/checkpoint_2.pth")
    assert model.vocabulary == Classes(("cat", "dog"))
    assert main(["caption", "images", "--checkpoint", "run/checkpoint_2.pth"]) == 2
    assert "image_classification cannot caption" in capsys.readouterr().err


def test_a_run_resumes_without_the_file_that_it_began_from(directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    resume = (*FROZEN, "--resume-from", "latest")
    other = ("--checkpoint", "random", "--network", "torchvision::resnet18")
    assert finetune(*other, *resume) == 2
    assert "the run began from start/checkpoint_0.pth" in capsys.readouterr().err
    before = records()
    Path("start/checkpoint_0.pth").unlink()
    Path("run/results.json").unlink()
    shutil.copytree("images", "moved")
    same = ("--checkpoint", "start/checkpoint_0.pth", *resume)
    assert finetune(*same, data="moved") == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["finetune", "top1"],
        ["finetune", "balanced_accuracy"],
    ]
    assert [record | {"root": "images"} for record in records()] == before


def test_changed_labels_are_noticed_where_a_run_resumes(directory, monkeypatch, capsys):
    monkeypatch.chdir(directory)
    again = ("--checkpoint", "start/checkpoint_0.pth", *FROZEN, "--resume-from", "latest")
    shutil.copytree("images", "changed")
    shutil.move("changed/train/cat/0.png", "changed/train/dog/9.png")
    assert finetune(*again, data="changed") == 2
    assert "the data are not those that the checkpoint was trained on" in capsys.readouterr().err
    for split in ("train", "val"):
        Path("changed", split, "dog").rename(Path("changed", split, "cow"))
    assert finetune(*again, data="changed") == 2
    error = capsys.readouterr().err
    assert "the classes of the data are not those" in error
    assert "1 are missing (dog), 1 are new (cow)" in error
    assert error.count("\n") == 4  # with three lines about the run

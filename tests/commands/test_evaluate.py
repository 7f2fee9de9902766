import json
import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.commands.conftest import picture

import virtex
from virtex.cli import main
from virtex.commands.evaluate import FINETUNE
from virtex.evaluation.options import PROTOCOLS


@pytest.fixture
def images(tmp_path):
    """Two classes of five training and three test images, drawn."""
    from PIL import Image

    for split, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            directory = tmp_path / "images" / split / name
            directory.mkdir(parents=True)
            for index in range(count):
                pixels = picture(100 * label + 10 * len(split) + index)
                Image.fromarray(pixels).save(directory / f"{index}.png")
    return tmp_path / "images"


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def evaluate(*words):
    return main(["evaluate", *map(str, words), "--quiet"])


REPORT = "2 classes, one label an image: 10 training and 6 test images (imagefolder)\n"
RANDOM = ("--checkpoint", "random", "--network", "torchvision::resnet18", "--image-size", 32)


def test_results_of_a_checkpoint_lie_beside_it_and_are_replaced(
    images, label_model, tmp_path, capsys
):
    checkpoint = tmp_path / "run" / "checkpoint_0.pth"
    checkpoint.parent.mkdir()
    shutil.copy(label_model, checkpoint)
    words = ("knn", "--data", images, "--checkpoint", checkpoint, "--checkpoint", "random")
    assert evaluate(*words) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["protocol", "metric", "run/checkpoint_0.pth", "random"]
    assert [row.split()[:2] for row in rows] == [
        ["knn", "top1_k10"],
        ["knn", "balanced_accuracy_k10"],
    ]
    results = checkpoint.parent / "results.json"
    before = json.loads(results.read_text())
    assert [record["metric"] for record in before] == ["top1_k10", "balanced_accuracy_k10"]
    assert evaluate(*words) == 0
    assert json.loads(results.read_text()) == before
    assert evaluate(*words, "--seed", 1) == 0
    assert len(json.loads(results.read_text())) == 4


def test_several_processes_give_the_results_of_one_and_one_message(images, tmp_path, capfd):
    def files(processes, *words):
        output, cache = tmp_path / f"{processes}.json", tmp_path / f"cache{processes}"
        words = ("--output", output, "--cache-dir", cache, *words)
        status = evaluate("knn", "--data", images, *RANDOM, *words)
        assert (status, capfd.readouterr().err) == (0, REPORT)
        features = (cache / "features").iterdir()
        return output.read_bytes(), {path.name: path.read_bytes() for path in features}

    assert files(2, "--processes", 2) == files(1)
    words = ("--processes", 2, "--output", images / "train")
    assert evaluate("knn", "--data", images, *RANDOM, *words) == 2
    message = f"virtex evaluate: error: --output {images / 'train'} is a directory; name a file"
    assert capfd.readouterr().err == f"{message} in it\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("linear", "--data", "nowhere", *RANDOM), "nowhere: no such directory or table"),
        (("linear", "--data", ".", *RANDOM), "expected a directory with train/CLASS/IMAGE"),
        (("linear", "--data", "images", "--checkpoint", "random"), "nothing says which network"),
        (("linear", "--data", "images", "--checkpoint", "no.pth"), "no.pth"),
        (("linear", "--data", "images", "--checkpoint", "images"), "directory"),
        (("linear", "--data", "images", *RANDOM, "--device", "tpu"), "--device tpu is not"),
        (("linear", "--data", "images", *RANDOM, "--output", "images"), "is a directory"),
        (("linear", "--data", "images", *RANDOM, "--output", "old.json"), "does not hold the"),
        (("linear", "--data", "images", *RANDOM, "--cache-dir", "old.json"), "cannot write"),
        (("words", "--data", "nowhere", *RANDOM), "nowhere"),
        (("scenes", "--data", "images", "--checkpoint", "random"), "scenes needs the checkpoint"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("images")
def test_wrong_input_is_one_line_before_any_work(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").write_text("{}")
    assert evaluate(*words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "cache" / "virtex" / "features").exists()


def test_the_iteration_of_a_checkpoint_is_that_of_its_scalars(tmp_path):
    from virtex.training.logger import log_evaluation

    log_evaluation(tmp_path, 7, {"evaluate/knn/top1_k10": 50.0})
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Scalars("evaluate/knn/top1_k10")
    assert (event.step, event.value) == (7, 50.0)


@pytest.fixture(scope="module")
def drawn_scenes(tmp_path_factory):
    directory = tmp_path_factory.mktemp("drawn") / "scenes"
    words = ("--train", "12", "--val", "12", "--size", "32", "--max-objects", "1")
    words += ("--only", "coco", "--only", "imagefolder")
    words += ("--evaluation-train", "24", "--evaluation-val", "12")
    assert main(["synthesize", str(directory), *words, "--quiet"]) == 0
    return directory


@pytest.fixture
def scenes(drawn_scenes, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(drawn_scenes, tmp_path / "scenes"))


def test_scenes_give_the_same_figures_by_both_names(scenes, captioning_model, tmp_path, capsys):
    checkpoint = tmp_path / "run" / "c.pth"
    checkpoint.parent.mkdir()
    shutil.copy(captioning_model, checkpoint)
    common = ("--checkpoint", str(checkpoint), "--images", "4", "--quiet")
    capsys.readouterr()
    old, new = tmp_path / "old", tmp_path / "new"
    words = ["evaluate-scenes", *common, "--scenes", str(scenes), "--output", str(old)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert main(["evaluate", "scenes", *common, "--data", str(scenes), "--output", str(new)]) == 0
    assert capsys.readouterr().out == table
    for name in ("results.json", "captions.jsonl", "captions.png"):
        assert (old / name).read_bytes() == (new / name).read_bytes()
    report = json.loads((new / "results.json").read_text())
    records = json.loads((checkpoint.parent / "results.json").read_text())
    assert {record["metric"]: record["value"] for record in records} == {
        "captions_true": 100 * report["true"],
        "captions_true_in_pairs": 100 * report["true_in_pairs"],
        "shapes_top1": 100 * report["linear_classifier_pretrained"],
        "random_shapes_top1": 100 * report["linear_classifier_random"],
    }


def test_scenes_that_are_found_before_a_checkpoint_fails_are_kept(
    scenes, label_model, captioning_model, tmp_path, capsys
):
    paths = [tmp_path / name / "c.pth" for name in ("one", "two")]
    for path, model in zip(paths, (label_model, captioning_model), strict=True):
        path.parent.mkdir()
        shutil.copy(model, path)
    words = ("scenes", "--data", scenes, "--images", 4, "--cpu-workers", 0)
    words = (*words, *(word for path in paths for word in ("--checkpoint", path)))
    for image in (scenes / "val2017").iterdir():
        image.write_bytes(b"no image")
    assert evaluate(*words) == 2
    captured = capsys.readouterr()
    assert "one/c.pth" in captured.out
    assert "is not an image" in captured.err
    kept = json.loads(paths[0].with_name("results.json").read_text())
    found = virtex.evaluate("scenes", scenes, paths[0], images=4)
    assert [record["value"] for record in kept] == [result.value for result in found]
    assert kept[0]["settings"]["precision"] == "float32"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--engine", "torch"), "--engine is an option of voc07, not scenes"),
        (("--seed", 0), "--seed is an option of protocols on frozen features, zero-shot,"),
        (("--device", "tpu"), "--device tpu is not available"),
        (("--images", 13), "has only 12 held-out scenes"),
    ],
)
def test_scenes_refuses_what_it_does_not_have(scenes, captioning_model, words, message, capsys):
    assert evaluate("scenes", "--data", scenes, "--checkpoint", captioning_model, *words) == 2
    assert message in capsys.readouterr().err


def test_the_help_has_a_line_for_each_protocol(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    _, lines = capsys.readouterr().out.split("protocols on frozen features:")
    names = [line.split()[0] for line in lines.splitlines() if line.startswith("  ")]
    assert sorted(names) == sorted((*PROTOCOLS, FINETUNE))


def test_the_earlier_name_is_hidden(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "evaluate-scenes" not in capsys.readouterr().out

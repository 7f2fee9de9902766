"""`virtex evaluate` on wrong and on odd data: one line and status 2, or results."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image
from tests.commands.conftest import picture

from virtex.cli import main

LABELLED = ("knn", "linear", "low-shot", "voc07", "zero-shot")
RANDOM = ("--checkpoint", "random", "--network", "torchvision::resnet18", "--image-size", 32)


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """Two classes of six training and two test images, and a table of them."""
    root = tmp_path_factory.mktemp("valid")
    rows = ["image,split,label"]
    for split, count in (("train", 6), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = picture(100 * label + 10 * len(split) + index)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
                rows.append(f"{split}/{name}/{index}.png,{split},{name}")
    (root / "table.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def data(valid, tmp_path, monkeypatch):
    """A copy that a test may change."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(valid, tmp_path / "data")
    return tmp_path / "data"


def evaluate(protocol, data, *words, checkpoint=("--checkpoint", "none.pth")):
    words = ("--data", data, *checkpoint, "--cpu-workers", 0, *words)
    return main(["evaluate", protocol, *map(str, words), "--quiet"])


def remove(path):
    shutil.rmtree(path)


def keep_lines(data, kept):
    table = data / "table.csv"
    header, *rows = table.read_text().splitlines()
    table.write_text("\n".join([header, *filter(kept, rows)]) + "\n")


def change_table(data, old, new):
    table = data / "table.csv"
    table.write_text(table.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("root", "fault", "message"),
    [
        (".", lambda data: remove(data / "val" / "dog"), "1 only in train/ (dog)"),
        (".", lambda data: remove(data / "val"), "no val/ or test/"),
        (".", lambda data: [remove(path) for path in (data / "val").iterdir()], "0 in val/"),
        (
            ".",
            lambda data: [path.unlink() for path in (data / "train" / "cat").iterdir()],
            "1 without training images (cat)",
        ),
        ("empty", lambda data: (data / "empty").mkdir(), "expected a directory with train/CLASS"),
        ("table.csv", lambda data: change_table(data, ",val,", ",train,"), "whose split is val"),
        ("table.csv", lambda data: change_table(data, ",", ";"), "with commas between them"),
        (
            "table.csv",
            lambda data: keep_lines(data, lambda row: "dog" in row),
            "only the class dog",
        ),
        (
            "table.csv",
            lambda data: change_table(data, "train/cat/0.png", "train/dog/0.png"),
            "1 images are listed several times with different labels",
        ),
        ("table.csv", lambda data: change_table(data, ",cat", ","), "'label' is empty"),
    ],
)
def test_labels_that_no_protocol_can_use_are_one_line(data, root, fault, message, capsys):
    fault(data)
    for protocol in LABELLED:
        assert evaluate(protocol, data / root) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert (captured.err.count("\n"), captured.out) == (1, "")


@pytest.mark.parametrize("protocol", ["words", "captioning", "retrieval"])
def test_data_without_captions_is_named_as_it_was_given(data, protocol, capsys):
    shutil.rmtree(data / "val")
    (data / "annotations").mkdir()
    assert evaluate(protocol, data) == 2
    error = capsys.readouterr().err
    assert f"--data ({data})" in error
    assert "DATA." not in error
    assert error.count("\n") == 1


def test_what_a_protocol_cannot_fit_is_seen_before_features(data, capsys):
    for split, kept in (("train", 2), ("val", 2)):
        for path in (data / split).glob("*/*"):
            if int(path.stem) >= kept:
                path.unlink()
    for protocol, message in (("knn", "knn needs at least 10"), ("voc07", "3 positive and 3")):
        solver = ("--engine", "torch") if protocol == "voc07" else ()
        assert evaluate(protocol, data, *solver) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_missing_and_empty_images_are_counted_before_features(data, tmp_path, capsys):
    (data / "train" / "cat" / "0.png").write_bytes(b"")
    (data / "val" / "dog" / "1.png").unlink()
    (data / "val" / "dog" / "1.png").symlink_to("gone.png")
    assert evaluate("knn", data, checkpoint=RANDOM) == 2
    *_, error = capsys.readouterr().err.splitlines()
    assert "1 of 16 images do not exist" in error
    assert "1 of 16 images are empty files" in error
    assert "val/dog/1.png" in error
    assert "train/cat/0.png" in error
    assert not (tmp_path / "cache" / "virtex" / "features").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--checkpoint", "text.pth"), "text.pth is not a checkpoint"),
        (("--checkpoint", "empty.pth"), "empty.pth is truncated or damaged"),
        (("--checkpoint", "none.pth", "--checkpoint", "./none.pth"), "given more than once"),
        (("--checkpoint", "random", "--network", "torchvision::resnet"), "--network is"),
    ],
)
def test_models_that_cannot_be_opened_are_one_line(data, words, message, monkeypatch, capsys):
    monkeypatch.chdir(data)
    (data / "text.pth").write_text("hello")
    (data / "empty.pth").touch()
    protocols = LABELLED[:1] if "random" in words else LABELLED
    for protocol in protocols:
        assert evaluate(protocol, data, checkpoint=words) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_odd_images_directories_and_names_are_used(data, capsys):
    accent = os.fsdecode(b"\xe9")  # in Latin-1
    root = data / f"caf{accent}"
    for split in ("train", "val"):
        shutil.copytree(data / split, root / split)
        (root / split / "cat").rename(root / split / f"cat{accent}")
    cats = root / "train" / f"cat{accent}"
    pixels = picture(7)
    image = Image.fromarray(pixels)
    image.convert("CMYK").save(cats / "cmyk.jpg")
    image.convert("P").save(cats / "palette.png")
    image.save(cats / "animated.gif", save_all=True, append_images=[image.rotate(90)])
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(cats / "sixteen.png")
    (cats / "0.png").rename(cats / "0.PNG")
    (cats / "nested" / "deeper").mkdir(parents=True)
    (cats / "1.png").rename(cats / "nested" / "deeper" / "1.png")
    (cats / "link.png").symlink_to(data / "val" / "cat" / "0.png")
    (cats / "nested" / "loop").symlink_to(cats)
    shutil.move(root / "val" / "dog", root / "elsewhere")
    (root / "val" / "dog").symlink_to(root / "elsewhere")
    output = root / "new" / "results.json"
    for protocol in ("knn", "low-shot"):
        assert evaluate(protocol, root, "--output", output, checkpoint=RANDOM) == 0
    captured = capsys.readouterr()
    assert "17 training and 4 test images" in captured.err
    assert "low-shot" in captured.out
    roots = {record["root"] for record in json.loads(output.read_text())}
    assert roots == {f"{data}/caf\\udce9"}

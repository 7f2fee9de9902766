"""The function and the command give the same results, from images and from the cache."""

import json

import numpy as np
import pytest
from PIL import Image

import virtex
from virtex.cli import main
from virtex.errors import UserError

CLASSES = {"dark": 40, "grey": 120, "light": 200}
OPTIONS = ("--network", "torchvision::resnet18", "--image-size", "32", "--quiet")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Noise around a brightness for each class, 24 training and 12 test images."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for name, level in CLASSES.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(level, 30, (40, 36, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def evaluate(protocol, images, cache, **options):
    return virtex.evaluate(
        protocol,
        images,
        "random",
        network="torchvision::resnet18",
        image_size=32,
        cache_dir=cache,
        **options,
    )


def values(results):
    return {result.metric: result.value for result in results}


def test_python_the_command_and_the_cache_give_the_same_values(images, cache, tmp_path, capsys):
    protocol = "knn"
    output = tmp_path / "results.json"
    words = [protocol, "--data", str(images), "--checkpoint", "random", *OPTIONS]
    words += ["--cache-dir", str(tmp_path / "other"), "--output", str(output)]
    assert main(["evaluate", *words, "--cpu-workers", "1"]) == 0
    table = capsys.readouterr().out
    assert main(["evaluate", *words]) == 0  # from the cache
    assert capsys.readouterr().out == table
    records = json.loads(output.read_text())
    found = evaluate(protocol, images, cache)
    assert {record["metric"]: record["value"] for record in records} == values(found)
    assert {record["protocol"] for record in records} == {protocol}
    assert f"{found[0].value:.2f}" in table


def test_brightness_is_told_apart_by_random_weights(images, cache):
    assert values(evaluate("linear", images, cache))["top1"] > 80


def test_images_that_cannot_be_read_are_named_or_left_out(images, cache, tmp_path):
    rows = [
        f"{path},{path.parent.name},{path.parent.parent.name}" for path in images.rglob("*.png")
    ]
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows.append("bad.png,dark,train")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["image,label,split", *rows]))
    with pytest.raises(UserError, match=r"1 of 37 images cannot be read: .*bad\.png"):
        evaluate("linear", table, cache)
    found = evaluate("linear", table, cache, on_bad_image="skip")
    assert found[0].settings["train_images"] == 24


def test_an_unknown_protocol_is_named(images, cache):
    with pytest.raises(UserError, match="the protocol is 'lineal'; expected one of knn, linear"):
        evaluate("lineal", images, cache)

"""`virtex embed`: the features of the evaluation, with paths, once computed."""

import json

import cv2
import numpy as np
import pytest

from virtex.cli import main
from virtex.evaluation import feature_cache

RANDOM = ("--checkpoint", "random", "--network", "torchvision::resnet18", "--device", "cpu")


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    (root / "inner").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("b.png", "inner/a.jpg", "inner/c.png"):
        cv2.imwrite(str(root / name), rng.integers(0, 256, (40, 60, 3)).astype(np.uint8))
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def embed(tmp_path, capsys):
    """A function that gives exit status and error output."""

    def run(*words):
        given = ("--cpu-workers", 0, "--cache-dir", tmp_path / "cache", "--quiet")
        status = main(["embed", *map(str, (*words, *RANDOM, *given))])
        return status, capsys.readouterr().err

    return run


def test_both_formats_hold_the_same_features_by_path(embed, images, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("f.npz", "f.parquet"):
        assert embed(images, "--output", tmp_path / name) == (0, "")
    with np.load(tmp_path / "f.npz") as file:
        paths, features = file["path"].tolist(), file["features"]
        description = json.loads(str(file["description"]))
    assert paths == [str(images / name) for name in ("b.png", "inner/a.jpg", "inner/c.png")]
    assert features.shape == (3, 512)
    assert features.dtype == np.float32
    assert description["network"] == "resnet18"
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table["path"].to_pylist() == paths
    assert np.array_equal(np.array(table["features"].to_pylist(), np.float32), features)
    assert json.loads(table.schema.metadata[b"virtex"]) == description


def test_an_interrupted_command_computes_only_the_rest(embed, images, tmp_path, monkeypatch):
    monkeypatch.setattr("virtex.evaluation.embedding._PART", 1)
    computed = []
    compute = feature_cache.shared_features

    def counting(backbone, paths, *rest, **options):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(paths)
        return compute(backbone, paths, *rest, **options)

    monkeypatch.setattr(feature_cache, "shared_features", counting)
    assert embed(images, "--output", tmp_path / "f.npz")[0] == 130
    assert not (tmp_path / "f.npz").exists()
    monkeypatch.setattr(feature_cache, "shared_features", compute)
    assert embed(images, "--output", tmp_path / "f.npz")[0] == 0
    monkeypatch.setattr("virtex.evaluation.embedding._PART", 4096)
    assert embed(images, "--output", tmp_path / "whole.npz")[0] == 0
    with np.load(tmp_path / "f.npz") as parts, np.load(tmp_path / "whole.npz") as whole:
        assert parts["path"].tolist() == whole["path"].tolist()
        np.testing.assert_allclose(parts["features"], whole["features"], rtol=1e-4, atol=1e-5)


def test_images_that_cannot_be_read_are_named(embed, images, tmp_path):
    (images / "b.png").write_bytes(b"not an image")
    status, err = embed(images, "--output", tmp_path / "f.npz")
    assert status == 2
    assert "1 of 3 images cannot be read" in err
    status, err = embed(images, "--output", tmp_path / "f.npz", "--on-bad-image", "skip")
    assert status == 0
    assert "skipped" in err
    assert "b.png" in err
    with np.load(tmp_path / "f.npz") as file:
        assert len(file["path"]) == 2


@pytest.mark.parametrize(
    ("path", "output", "message"),
    [
        ("images", "f.csv", "the extension must be .npz or .parquet"),
        ("nowhere", "f.npz", "No such file"),
        ("images/notes", "f.npz", "no images in"),
    ],
)
def test_wrong_input_is_one_line(embed, images, tmp_path, path, output, message):
    (images / "notes").mkdir()
    (images / "notes" / "a.txt").write_text("no image")
    status, err = embed(tmp_path / path, "--output", tmp_path / output)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1

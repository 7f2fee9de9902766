"""Images of more than 8 bits and of other bands than RGB, from training to captions."""

import csv
import json
import tarfile

import cv2
import numpy as np
import pytest
import torch
from tests.data.dicoms import dicom
from tests.end_to_end.conftest import scalars

import virtex
from virtex.cli import main
from virtex.data.images import read_image
from virtex.data.pixel_values import PixelSettings

tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(0)
FIVE = ("DATA.BANDS", "[3, 2, 1, 5]", "DATA.IMAGE_TRANSFORM_TRAIN")
FIVE += ("[random_resized_crop, horizontal_flip, normalize]",)
RANGES = ((0, 16383), (0, 16383), (0, 16383), (0, 2047))


def values(bands):
    """Soft blots of up to 9,000, those of band 5 up to 1,500."""
    coarse = RNG.random((5, 6, bands)) * [9000, 9000, 9000, 9000, 1500][:bands]
    return cv2.resize(coarse, (80, 72), interpolation=cv2.INTER_LINEAR).astype(np.uint16)


def save(root, write):
    """A table of 12 images for training and 4 for validation, each written by `write(path)`."""
    for split, count in (("train", 12), ("val", 4)):
        rows = [[write(root / f"{split}{number}").name, "a red dot"] for number in range(count)]
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image", "caption"], *rows])


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """A table of TIFF files with five bands of 16 bits."""
    root = tmp_path_factory.mktemp("five")

    def write(path):
        path = path.with_suffix(".tif")
        tifffile.imwrite(path, values(5), photometric="minisblack", planarconfig="contig")
        return path

    save(root, write)
    return root


def on(root, *more):
    """Overrides that train on a table for two iterations."""
    settings = ("DATA.FORMAT", "table", "DATA.ROOT", root, "OPTIM.WARMUP_STEPS", 1)
    return (*settings, "OPTIM.NUM_ITERATIONS", 4, *more)


def log(run):
    return (run / "log_rank0.txt").read_text(encoding="utf-8")


def test_bands_are_trained_on_resumed_and_captioned_alike(scenes, five, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    every = ("--checkpoint-every", 2, "--cpu-workers", 0)
    assert scenes.pretrain(whole, *every, override=on(five, *FIVE)) == 0
    assert "sampled images have more than 8 bits (uint16 of " in log(whole)
    assert "mean of the bands in sampled images: (0." in log(whole)
    parts.mkdir()
    for name in ("config.yaml", "checkpoint_2.pth"):
        (parts / name).write_bytes((whole / name).read_bytes())
    # The YAML file and the command line say auto again.
    resumed = scenes.pretrain(parts, *every, "--resume-from", "latest", override=on(five, *FIVE))
    assert resumed == 0
    assert scalars(parts, "val/loss")[-1:] == scalars(whole, "val/loss")[-1:]

    model = virtex.load(whole / "checkpoint_4.pth")
    data = model.config.data
    assert data.pixel_range == RANGES
    mean, std = data.normalization
    image = five / "val0.tif"
    settings = PixelSettings(RANGES, bands=(3, 2, 1, 5))
    expected = tifffile.imread(image)[:, :, [2, 1, 0, 4]] >> np.array([6, 6, 6, 3])
    np.testing.assert_array_equal(read_image(image, pixels=settings), expected)
    crop = model.crops([image])
    assert crop.shape == (1, 4, 64, 64)
    assert 0.3 < float(crop.double().mean()) / 255 / np.mean(mean) < 3
    torch.testing.assert_close(
        model.objective.visual.pixel_mean.flatten(), 255 * torch.tensor(mean)
    )
    assert len(std) == 4

    capsys.readouterr()
    command = ["--checkpoint", str(whole / "checkpoint_4.pth"), "--quiet"]
    assert main(["caption", str(image), *command]) == 0
    found = main(["attention", str(image), *command[:2], "--output", str(tmp_path / "a.png")])
    assert found in (0, 2)  # a model of four steps may generate no word
    with pytest.raises(virtex.errors.UserError, match=r"expected uint8 \[height, width, 4\]"):
        model.features([np.zeros((64, 64, 3), np.uint8)])


def test_bands_that_are_not_chosen_are_refused_before_training(scenes, five, run, capsys):
    assert scenes.pretrain(run, override=on(five)) == 2
    assert (
        "it has 5 bands, and nothing says which are red, green and blue" in capsys.readouterr().err
    )
    assert scenes.pretrain(run, override=on(five, *FIVE[:2])) == 2
    assert "expected no saturation and hue for 4 bands" in capsys.readouterr().err


def test_weights_of_rgb_start_a_run_on_bands(scenes, five, reference, run):
    start = ("--init-from", reference / "checkpoint_20.pth", "--cpu-workers", 0)
    assert scenes.pretrain(run, *start, override=on(five, *FIVE)) == 0
    assert "of 4 bands, the first three take its filters, others their mean, scaled by 3/4" in log(
        run
    )


def test_twelve_bits_in_sixteen_are_mapped_in_training_captions_and_packing(
    scenes, tmp_path, capsys
):
    root, run = tmp_path / "table", tmp_path / "run"
    root.mkdir()

    def write(path):
        path = path.with_suffix(".png")
        cv2.imwrite(str(path), (values(1) * 0.45).astype(np.uint16))
        return path

    save(root, write)
    assert scenes.pretrain(run, "--cpu-workers", 0, override=on(root)) == 0
    assert "0 … 4095 become 0 … 255 (DATA.PIXEL_RANGE)" in log(run)
    image = root / "val0.png"
    expected = cv2.imread(str(image), cv2.IMREAD_UNCHANGED) >> 4
    checkpoint = run / "checkpoint_4.pth"
    model = virtex.load(checkpoint)
    assert model.config.data.pixel_range == (0, 4095)
    mapped = model._array(image)
    np.testing.assert_array_equal(mapped[:, :, 0], expected)

    # A range that leaves them black is reported where images are read.
    capsys.readouterr()
    dark = ["--pixel-range", "0,65535", "--checkpoint", str(checkpoint), "--quiet"]
    assert main(["caption", str(image), *dark]) == 0
    assert "0 … 65535 become 0 … 255, but most of them lie in" in capsys.readouterr().err

    packed = ["pack", str(root), str(tmp_path / "packed"), "--from", "table", "--workers", "1"]
    assert main([*packed, "--short-side", "36", "--quality", "100", "--quiet"]) == 0
    with tarfile.open(tmp_path / "packed" / "val" / "00000.tar") as tar:
        jpegs = [tar.extractfile(name).read() for name in tar.getnames() if ".jpg" in name]
    shrunk = [cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_GRAYSCALE) for one in jpegs]
    assert min(abs(one.mean() - expected.mean()) for one in shrunk) < 2
    assert json.loads((tmp_path / "packed" / "val" / "pack.json").read_text())["pixel_ranges"]


def test_dicom_files_are_trained_on(scenes, tmp_path, run):
    pytest.importorskip("pydicom")

    def write(path):
        path = path.with_suffix(".dcm")
        content = dicom(values(1) // 3, syntax="JPEG-LS", WindowCenter=1500, WindowWidth=3000)
        path.write_bytes(content)
        return path

    save(tmp_path, write)
    assert scenes.pretrain(run, "--cpu-workers", 0, override=on(tmp_path)) == 0
    crop = virtex.load(run / "checkpoint_4.pth").crops([tmp_path / "val0.dcm"])
    assert 40 < float(crop.double().mean()) < 215  # neither black nor white


def test_the_range_of_images_of_8_bits_stays_open(reference):
    assert virtex.load(reference / "checkpoint_20.pth").config.data.pixel_range == "auto"
    assert "more than 8 bits" not in log(reference)

"""`virtex evaluate` with the protocols that train a head, as a user calls it."""

import json
import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tests.evaluation.dense.test_segmentation import write_masks
from tests.evaluation.dense.trees import write_coco, write_voc

import virtex
from virtex.checkpoints import file
from virtex.cli import main
from virtex.commands import evaluate_dense
from virtex.distributed.signals import SIGNALS
from virtex.errors import UserError
from virtex.evaluation.dense import detection
from virtex.evaluation.dense.reporting import Silence

RANDOM = ("--checkpoint", "random", "--network", "torchvision::resnet18", "--device", "cpu")
SMALL = ("--batch-size", 2, "--min-size", 64, "--cpu-workers", 0, "--pyramid-channels", 4)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("trees")
    write_voc(root / "voc", splits=(("trainval", 1, 3), ("test", 101, 2)))
    write_coco(root / "coco", train=3, test=2)
    write_masks(root / "masks")
    return root


@pytest.fixture
def evaluate(trees, tmp_path, monkeypatch, capsys):
    """A function that gives the exit status, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(protocol, data, *words):
        status = main(["evaluate", protocol, "--data", str(trees / data), *map(str, words)])
        return status, *capsys.readouterr()

    return run


def results(path):
    return {one["metric"]: one for one in json.loads(path.read_text())}


def in_python(protocol, data, **options):
    """The records of `virtex.evaluate` by metric."""
    found = virtex.evaluate(protocol, data, "random", network="torchvision::resnet18", **options)
    return {one.metric: json.loads(one.model_dump_json(exclude_none=True)) for one in found}


def weights(directory):
    (path,) = directory.glob("*/checkpoint_2.pth")
    return file.load(path)["module"]


def test_a_stopped_detector_resumes_in_python_to_the_same_weights_and_figures(
    evaluate, trees, tmp_path, monkeypatch
):
    common = (*RANDOM, *SMALL, "--frozen", "--iterations", 2, "--quiet")
    words = (*common, "--output", "whole.json", "--work-dir", "whole")
    status, out, err = evaluate("detection", "voc", *words)
    assert status == 0, err
    assert "2 classes: 3 training images with 4 objects, 2 test images" in out
    assert "batch norm of the backbone is fixed" in out
    assert "cat: AP50" in out
    assert out.count("Average Precision  (AP)") == 6
    whole = results(tmp_path / "whole.json")
    assert {"voc07_ap50", "voc_ap50", "box_ap", "box_ar_100"} <= whole.keys()
    assert whole["box_ap"]["settings"]["detector"] == "faster-rcnn"
    assert whole["box_ap"]["settings"]["iterations"] == 2

    # A real signal, at the end of the first iteration.
    def stop(*arguments):
        around = replace(arguments[4], progress=Stopping())
        return trained(*arguments[:4], around, arguments[5])

    trained = detection.train
    monkeypatch.setattr(detection, "train", stop)
    words = (*common, "--output", "parts.json", "--work-dir", "parts")
    status, _, err = evaluate("detection", "voc", *words)
    assert status == 75
    assert "stopped by a signal after iteration 1 of 2" in err
    assert not (tmp_path / "parts.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)]
    resumed = in_python(
        "detection",
        trees / "voc",
        **{"iterations": 2, "batch_size": 2, "min_size": 64, "pyramid_channels": 4},
        frozen=True,
        work_dir="parts",
        resume=True,
    )
    assert [signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)] == handlers
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all((one[name] == other[name]).all() for name in one)
    assert resumed == whole


class Stopping(Silence):
    def advance(self, *_):
        os.kill(os.getpid(), signal.SIGINT)


class StoppedJudgement(Silence):
    """A signal after the first image that is judged."""

    def __init__(self, label, *_, **__):
        self.label = label

    def advance(self, *_):
        if self.label.startswith("judging"):
            os.kill(os.getpid(), signal.SIGTERM)


def test_mask_rcnn_is_judged_by_boxes_and_masks(evaluate, tmp_path):
    words = (*RANDOM, *SMALL, "--output", "r.json", "--iterations", 1)
    status, out, err = evaluate("detection", "coco", *words)
    assert status == 0, err
    assert "batch norm of the backbone is over the images of a batch on the one process" in out
    assert "trained for 1 iterations: loss" in err
    assert out.count("Average Precision  (AP)") == 12
    found = results(tmp_path / "r.json")
    assert {"box_ap", "segm_ap", "segm_ar_100"} <= found.keys()
    assert found["segm_ap"]["settings"]["frozen"] is False
    (path,) = (tmp_path / "runs/detection").glob("random-*/detections.json")
    for one in json.loads(path.read_text()):
        assert one["image_id"] in (101, 102)
        assert one["category_id"] in (7, 3)
        assert one["segmentation"]["size"] == [64, 64]


def test_linear_segmentation_gives_the_same_in_python_and_where_it_resumes(
    evaluate, trees, tmp_path, monkeypatch
):
    words = (*RANDOM, "--image-size", 32, "--iterations", 2, "--batch-size", 2)
    words = ("linear-segmentation", "masks", *words, "--cpu-workers", 0, "--output", "r.json")
    status, out, err = evaluate(*words)
    assert status == 0, err
    assert "3 classes: 4 training and 2 test images with masks" in out
    assert out.count(": IoU ") == 3
    found = results(tmp_path / "r.json")
    assert found.keys() == {"miou", "pixel_accuracy"}
    assert 0 <= found["miou"]["value"] <= 100
    assert found["miou"]["settings"]["classes"] == ["0", "1", "2"]
    (tmp_path / "r.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(evaluate_dense, "Progress", StoppedJudgement)
        status, _, err = evaluate(*words, "--resume")
        assert (status, "--resume judges it" in err) == (75, True)
    assert evaluate(*words, "--resume")[0] == 0
    assert results(tmp_path / "r.json") == found

    options = {"image_size": 32, "iterations": 2, "batch_size": 2, "work_dir": "other"}
    state = torch.get_rng_state()
    with ThreadPoolExecutor(1) as pool:  # in a notebook's thread, say, which gets no signals
        work = pool.submit(in_python, "linear-segmentation", trees / "masks", **options)
        assert work.result() == found
    assert torch.equal(torch.get_rng_state(), state)


def test_a_range_of_values_maps_images_of_more_than_8_bits(evaluate, tmp_path):
    eight, twelve = write_masks(tmp_path / "eight"), write_masks(tmp_path / "twelve")
    for path in eight.glob("*/images/*.jpg"):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path.with_suffix(".png")), grey)
        other = twelve / path.relative_to(eight)
        cv2.imwrite(str(other.with_suffix(".png")), grey.astype(np.uint16) << 4)
        path.unlink()
        other.unlink()
    options = {"image_size": 32, "iterations": 2, "batch_size": 2}
    expected = in_python("linear-segmentation", eight, **options)
    mapped = {**options, "pixel_range": (0, 4095), "work_dir": "python"}
    found = in_python("linear-segmentation", twelve, **mapped)
    assert {name: one["value"] for name, one in found.items()} == {
        name: one["value"] for name, one in expected.items()
    }
    assert "pixel_ranges" in found["miou"]["settings"]
    assert "pixel_ranges" not in expected["miou"]["settings"]

    words = (*RANDOM, "--image-size", 32, "--iterations", 2, "--batch-size", 2)
    words = (*words, "--cpu-workers", 0, "--output", "r.json", "--work-dir", "command")
    words = (*words, "--pixel-range", "0,4095")
    status, _, err = evaluate("linear-segmentation", twelve, *words)
    assert status == 0, err
    assert results(tmp_path / "r.json") == found


@pytest.mark.parametrize(
    ("protocol", "data", "words", "message"),
    [
        ("detection", "masks", RANDOM, "expected a VOC2007 tree, or a COCO tree"),
        ("detection", "voc", (*RANDOM, *SMALL, "--max-size", 40), "--max-size 40 is less than"),
        ("detection", "voc", (*RANDOM, "--image-size", 64), "linear-segmentation, not detection"),
        ("detection", "voc", (*RANDOM, "--detector", "mask-rcnn"), "no mask-rcnn"),
        ("detection", "voc", (*RANDOM, "--pairs", 3), "--pairs is an option of retrieval"),
        ("knn", "voc", (*RANDOM, "--frozen"), "--frozen is an option of detection"),
        ("linear-segmentation", "voc", RANDOM, "expected train/images"),
        ("linear-segmentation", "masks", (*RANDOM, "--batch-size", 9), "larger than the data (4"),
        ("linear-segmentation", "masks", (*RANDOM, "--mask-classes", "no.txt"), "cannot read no"),
        (
            "linear-segmentation",
            "masks",
            (*RANDOM, "--cache-dir", "c"),
            "on frozen features, not linear-segmentation",
        ),
    ],
)
def test_wrong_input_is_one_line_before_any_work(
    evaluate, tmp_path, protocol, data, words, message
):
    status, out, err = evaluate(protocol, data, *words, "--quiet")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("runs/*/*/*"))


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("detection", {"image_size": 64}, "image_size is an option of protocols on frozen feat"),
        ("knn", {"frozen": True}, "frozen is an option of detection, not knn"),
        ("knn", {"processes": 2}, "start `virtex evaluate knn --processes 2` instead"),
        (
            "detection",
            {"iterations": 0, "detector": "yolo", "learning_rate": float("nan")},
            "iterations is 0; expected an integer of at least 1; detector is 'yolo'; expected "
            "'faster-rcnn' or 'mask-rcnn'; learning_rate is nan; expected a positive number",
        ),
        ("linear-segmentation", {}, "expected train/images"),
    ],
)
def test_python_refuses_wrong_options_before_any_work(protocol, options, message):
    with pytest.raises(UserError) as raised:
        virtex.evaluate(protocol, "nowhere", "random", **options)
    assert message in str(raised.value)


def test_detection_without_pycocotools_names_the_package(evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    status, _, err = evaluate("detection", "voc", *RANDOM)
    assert status == 2
    assert "pip install 'virtex-pretraining[detection]'" in err


def test_an_image_that_needs_a_package_is_one_line_before_processes_start(
    evaluate, trees, tmp_path, monkeypatch
):
    tifffile = pytest.importorskip("tifffile")
    voc = shutil.copytree(trees / "voc", tmp_path / "voc")
    image = sorted(voc.rglob("JPEGImages/*.jpg"))[0]
    tifffile.imwrite(image, np.zeros((64, 64, 3), np.uint16))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    words = (*RANDOM, *SMALL, "--iterations", 2, "--processes", 2, "--quiet")
    status, _, err = evaluate("detection", voc, *words)
    assert status == 2
    assert "pip install 'virtex-pretraining[bands]'" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_two_processes_train_the_same_detector_and_give_one_result(evaluate, trees, tmp_path):
    words = (*RANDOM, *SMALL, "--iterations", 2, "--output", "r.json", "--processes", 2)
    status, _, err = evaluate("detection", "voc", *words)
    assert status == 0, err
    found = results(tmp_path / "r.json")
    options = {"iterations": 2, "batch_size": 2, "min_size": 64, "pyramid_channels": 4}
    again = in_python("detection", trees / "voc", **options, processes=2, resume=True)
    assert again == found
    assert "box_ap" in again
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

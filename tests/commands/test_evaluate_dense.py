"""`virtex evaluate` with the protocols that train a head, as a user calls it."""

import json
import os
import signal
import sys

import pytest
from tests.evaluation.dense.test_segmentation import write_masks
from tests.evaluation.dense.trees import write_coco, write_voc

from virtex.checkpoints import file
from virtex.cli import main
from virtex.evaluation.dense import detection

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


def weights(directory):
    (path,) = directory.glob("*/checkpoint_2.pth")
    return file.load(path)["module"]


def test_a_stopped_detector_resumes_to_the_same_weights_and_figures(
    evaluate, tmp_path, monkeypatch
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
    def stop(*arguments, **options):
        return trained(*arguments[:4], _stopping(arguments[4]), arguments[5], **options)

    trained = detection.train
    monkeypatch.setattr(detection, "train", stop)
    words = (*common, "--output", "parts.json", "--work-dir", "parts")
    status, _, err = evaluate("detection", "voc", *words)
    assert status == 75
    assert "stopped by a signal after iteration 1 of 2" in err
    assert not (tmp_path / "parts.json").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert evaluate("detection", "voc", *words, "--resume")[0] == 0
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all((one[name] == other[name]).all() for name in one)
    assert results(tmp_path / "parts.json") == whole


def _stopping(around):
    from dataclasses import replace

    return replace(around, advance=lambda *_: os.kill(os.getpid(), signal.SIGINT))


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


def test_linear_segmentation_gives_iou_and_accuracy(evaluate, tmp_path):
    words = (*RANDOM, "--image-size", 32, "--iterations", 2, "--batch-size", 2)
    status, out, err = evaluate(
        "linear-segmentation", "masks", *words, "--cpu-workers", 0, "--output", "r.json"
    )
    assert status == 0, err
    assert "3 classes: 4 training and 2 test images with masks" in out
    assert out.count(": IoU ") == 3
    found = results(tmp_path / "r.json")
    assert found.keys() == {"miou", "pixel_accuracy"}
    assert 0 <= found["miou"]["value"] <= 100
    assert found["miou"]["settings"]["classes"] == ["0", "1", "2"]


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


def test_detection_without_pycocotools_names_the_package(evaluate, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    status, _, err = evaluate("detection", "voc", *RANDOM)
    assert status == 2
    assert "pip install 'virtex-pretraining[detection]'" in err


@pytest.mark.slow
def test_two_processes_train_the_same_detector_and_give_one_result(evaluate, tmp_path):
    words = (*RANDOM, *SMALL, "--iterations", 2, "--output", "r.json", "--processes", 2)
    status, _, err = evaluate("detection", "voc", *words)
    assert status == 0, err
    assert "box_ap" in results(tmp_path / "r.json")

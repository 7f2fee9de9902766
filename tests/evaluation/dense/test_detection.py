import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.evaluation.dense.trees import write_coco

from virtex.errors import UserError
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.dense.detection import _in_coco_form
from virtex.evaluation.dense.detection_job import (
    DetectionJob,
    DetectionSettings,
    check_job,
    objects_hash,
    open_detection,
)
from virtex.training.precision import named_precision


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    data, detector = open_detection(write_coco(tmp_path_factory.mktemp("coco")), None, "error")
    (backbone,) = open_backbones(["random"], network_name="torchvision::resnet18")
    settings = DetectionSettings(batch_size=4)
    precision = named_precision("float32", torch.device("cpu"))
    return DetectionJob(
        data, objects_hash(data), detector, backbone, settings, Path("none"), False, precision, 1
    )


def test_defaults_are_those_published_and_scale_with_the_batch(job):
    coco = replace(job, settings=DetectionSettings())
    voc = replace(coco, data=replace(job.data, kind="voc"), detector="faster-rcnn")
    assert (coco.resolved()["iterations"], voc.resolved()["iterations"]) == (180_000, 24_000)
    assert (coco.resolved()["drops"], voc.resolved()["drops"]) == (
        [120_000, 160_000],
        [18_000, 22_000],
    )
    assert (coco.resolved()["warmup"], voc.resolved()["warmup"]) == (1000, 100)
    assert coco.plan().learning_rate == 0.02
    assert job.plan().learning_rate == 0.005
    schedule = voc.plan().schedule
    rates = [schedule(step) for step in (0, 50, 100, 17_999, 18_000, 22_000)]
    assert rates == pytest.approx([0, 0.5, 1, 1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("changes", "others", "message"),
    [
        ({"batch_size": 5}, {}, "--batch-size 5 is larger than the data (4 training images"),
        ({}, {"processes": 3}, "--batch-size 4 cannot be divided over 3 processes"),
        ({"shorter_side": 63}, {}, "--min-size 63 is too small; give at least 64"),
        ({"longer_side": 700}, {}, "--max-size 700 is less than --min-size 800"),
    ],
)
def test_what_would_fail_later_is_refused(job, changes, others, message):
    settings = replace(job.settings, **changes)
    with pytest.raises(UserError, match=re.escape(message)):
        check_job(replace(job, settings=settings, **others))


def test_networks_without_four_stages_are_refused(job):
    backbone = replace(job.backbone, network="vit_b_32")
    with pytest.raises(UserError, match="needs the four stages of a ResNet"):
        check_job(replace(job, backbone=backbone))


def test_the_hash_of_the_data_depends_on_names_and_objects(job):
    train = job.data.train
    boxes = train.boxes.copy()
    boxes[0, 0] += 1
    names = (train.paths[1], train.paths[0], *train.paths[2:])
    hashes = {
        objects_hash(replace(job.data, train=split))
        for split in (train, replace(train, boxes=boxes), replace(train, paths=names))
    }
    assert len(hashes) == 3
    assert job.data_sha256 in hashes


def test_detections_are_scaled_to_the_image_and_their_masks_lie_in_the_boxes(job):
    """From 128 x 96 pixels of the network to the image's 64 x 64."""
    prediction = {
        "boxes": torch.tensor([[30.0, 32.0, 60.0, 96.0]]),
        "labels": torch.tensor([2]),
        "scores": torch.tensor([0.75]),
        "masks": torch.ones(1, 1, 28, 28),
    }
    (found,) = _in_coco_form(job, 1, prediction, (128, 96))
    assert (found["image_id"], found["category_id"], found["score"]) == (102, 3, 0.75)
    assert found["bbox"] == pytest.approx([20, 16, 20, 32])
    from pycocotools import mask

    x, y, width, height = mask.toBbox(found["segmentation"])
    assert (x, y) == pytest.approx((20, 16), abs=1)
    assert (width, height) == pytest.approx((20, 32), abs=2)

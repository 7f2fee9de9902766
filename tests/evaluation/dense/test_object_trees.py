"""Reading of objects from COCO and VOC trees."""

import shutil

import numpy as np
import pytest
from PIL import Image
from tests.evaluation.dense.trees import (
    annotation,
    change,
    scene,
    voc_xml,
    write_coco,
    write_voc,
)

from virtex.errors import UserError
from virtex.evaluation.dense.coco_figures import coco_figures, encode_mask, polygons_mask
from virtex.evaluation.dense.coco_tree import read_coco_objects
from virtex.evaluation.dense.detection_job import open_detection
from virtex.evaluation.dense.voc_ap import Detections, voc_figures
from virtex.evaluation.dense.voc_tree import read_voc_objects


@pytest.fixture(scope="module")
def coco_once(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def voc_once(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("voc"))


@pytest.fixture
def coco(coco_once, tmp_path):
    return shutil.copytree(coco_once, tmp_path / "coco")


@pytest.fixture
def voc(voc_once, tmp_path):
    return shutil.copytree(voc_once, tmp_path / "voc")


def boxes_of(split, image):
    return split.boxes[split.objects(image)].tolist()


def test_coco_labels_follow_the_file_and_boxes_are_corners(coco_once):
    data = read_coco_objects(coco_once, masks=True, on_bad_image="error")
    assert (data.classes, data.category_ids) == (("cat", "dog"), (7, 3))
    assert [len(data.train), len(data.test), len(data.train.labels)] == [4, 3, 6]
    for row, identity in enumerate(data.train.image_ids.tolist()):
        names = [data.classes[label - 1] for label in data.train.labels[data.train.objects(row)]]
        assert [[name, *box] for name, box in zip(names, boxes_of(data.train, row), strict=True)]
        assert boxes_of(data.train, row) == [list(map(float, box[1:])) for box in scene(identity)]
        assert names == [box[0] for box in scene(identity)]


def test_voc_boxes_are_the_same_objects(voc_once, coco_once):
    ours = read_voc_objects(voc_once)
    theirs = read_coco_objects(coco_once, masks=False, on_bad_image="error")
    for split in ("train", "test"):
        one, other = getattr(ours, split), getattr(theirs, split)
        assert one.boxes.tolist() == other.boxes.tolist()
        assert one.labels.tolist() == other.labels.tolist()


def test_what_cannot_be_trained_on_is_left_out_and_counted(coco):
    def edit(content):
        content["categories"].append({"id": 9, "name": "yak"})
        content["annotations"] += [
            annotation(50, 1, 7, (5, 5, 5, 9)),
            annotation(51, 1, 7, (0, 0, 9, 9), iscrowd=1),
            annotation(52, 1, 3, (0, 0, 9, 9), segmentation=[]),
            annotation(53, 2, 3, (60, 60, 70, 70)),
        ]
        content["images"].append(
            {"id": 9, "file_name": "000000000001.png", "width": 64, "height": 64}
        )

    change(coco, "train", edit)
    change(coco, "val", lambda content: content["categories"].append({"id": 9, "name": "yak"}))
    data, detector = open_detection(coco, None, "error")
    assert detector == "mask-rcnn"
    assert len(data.train.labels) == 7
    assert boxes_of(data.train, 1)[-1] == [60, 60, 64, 64]  # clipped to the image
    assert len(data.train) == 4
    report = "\n".join(data.report)
    for line in (
        "1 training objects are crowds",
        "1 training objects have no polygons",
        "1 training objects have a box without area",
        "1 categories have no training object (yak)",
        "1 training images have no object and are left out (9)",
    ):
        assert line in report
    boxes_only, _ = open_detection(coco, "faster-rcnn", "error")
    assert len(boxes_only.train.labels) == 8


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c["annotations"][0].pop("bbox"), "'bbox', four finite numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "'bbox', four finite"),
        (lambda c: c["annotations"][0].update(category_id=5), "categories that are not listed"),
        (lambda c: c["annotations"][0].update(segmentation=None), "give --detector faster-rcnn"),
        (
            lambda c: c["annotations"][0].update(
                segmentation={"counts": [10, 4000], "size": [64, 64]}
            ),
            "1 run-length codes do not fill their image",
        ),
        (lambda c: c["images"][0].update(width=63), "is annotated as 63 x 64"),
        (lambda c: c["images"][0].update(file_name="no.png"), "no.png does not exist"),
        (lambda c: c["categories"][0].update(name="yak"), "must have the same ids and names"),
        (lambda c: c.update(images=[]), "lists no images"),
        (lambda c: c.update(annotations=[]), "have no object that a detector could find"),
    ],
)
def test_mistakes_in_a_coco_tree_are_named(coco, edit, message):
    change(coco, "val", edit)
    with pytest.raises(UserError, match=message):
        open_detection(coco, None, "error")


def test_bad_images_are_named_or_left_out_of_images_and_truth(coco):
    (coco / "val2017/000000000101.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 7 images cannot be used.*000000000101"):
        open_detection(coco, None, "error")
    data, _ = open_detection(coco, None, "skip")
    assert data.test.image_ids.tolist() == [102, 103]
    assert {one["image_id"] for one in data.truth["annotations"]} == {102, 103}
    assert "1 images cannot be used and are left out" in "\n".join(data.report)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>", "is not a VOC annotation"),
        ("<!DOCTYPE a><annotation/>", "has a document type"),
        ("<annotation><size/></annotation>", "has no size/height"),
        (voc_xml([("yak", 1, 1, 9, 9)]), "no training image shows yak"),
        (voc_xml([("cat", 1, 1, 9, "x")]), "could not convert"),
    ],
)
def test_mistakes_in_a_voc_tree_are_named(voc, xml, message):
    (voc / "VOCdevkit/VOC2007/Annotations/000102.xml").write_text(xml)
    with pytest.raises(UserError, match=message):
        open_detection(voc, None, "error")


def test_missing_annotations_and_masks_of_voc_are_named(voc):
    with pytest.raises(UserError, match="no mask-rcnn"):
        open_detection(voc, "mask-rcnn", "error")
    (voc / "VOCdevkit/VOC2007/Annotations/000102.xml").unlink()
    with pytest.raises(UserError, match=r"1 of 3 annotations do not exist.*000102\.xml"):
        open_detection(voc, None, "error")
    with pytest.raises(UserError, match="expected a VOC2007 tree, or a COCO tree"):
        open_detection(voc / "VOCdevkit/VOC2007/JPEGImages", None, "error")


def test_voc2012_is_trained_on_if_it_lies_beside(voc):
    write_voc(voc, splits=(("trainval", 301, 2),), year=2012)
    data, _ = open_detection(voc, None, "error")
    assert len(data.train) == 6
    assert "trainval of VOC2007 and trainval of VOC2012" in data.report[0]


def perfect(data):
    """The objects of the test split as detections in COCO's form."""
    test = data.test
    owners = np.repeat(test.image_ids, np.diff(test.ends)).tolist()
    return [
        {
            "image_id": owner,
            "category_id": data.category_ids[label - 1],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": 0.9,
        }
        for owner, (x1, y1, x2, y2), label in zip(
            owners, test.boxes.tolist(), test.labels.tolist(), strict=True
        )
    ]


def test_perfect_detections_have_all_figures_at_100(coco_once):
    data, _ = open_detection(coco_once, None, "error")
    found = perfect(data)
    for index, one in enumerate(found):
        one["segmentation"] = encode_mask(polygons_mask(data.test.outlines[index], (64, 64)))
    for judged in ("box", "segm"):
        figures, lines = coco_figures(data.truth, found, judged)
        values = {figure.metric: figure.value for figure in figures}
        assert values[f"{judged}_ap"] == values[f"{judged}_ap75"] == pytest.approx(100)
        assert f"{judged}_ap_large" not in values  # there is no large object
        assert len(lines.splitlines()) == 12
    figures, _ = coco_figures(data.truth, found[1:], "box")
    assert figures[0].value < 100
    figures, _ = coco_figures(data.truth, [], "box")
    assert figures[0].value == 0


def test_difficult_objects_do_not_count_in_either_form(voc):
    annotations = voc / "VOCdevkit/VOC2007/Annotations"
    (annotations / "000102.xml").write_text(voc_xml(scene(102), difficult=(1,)))
    data, _ = open_detection(voc, None, "error")
    assert "1 do not count in the test" in data.report[0]
    missed = [one for one in perfect(data) if (one["image_id"], one["category_id"]) != (6, 2)]
    assert len(missed) == len(perfect(data)) - 1
    figures, _ = coco_figures(data.truth, missed, "box")
    assert figures[0].value == pytest.approx(100)
    boxes = np.array([one["bbox"] for one in missed], np.float64)
    boxes[:, 2:] += boxes[:, :2]
    found = Detections(
        images=np.array([one["image_id"] - 5 for one in missed]),
        boxes=boxes,
        labels=np.array([one["category_id"] for one in missed]),
        scores=np.array([one["score"] for one in missed]),
    )
    figures, _ = voc_figures(data.test, found, data.classes)
    assert {figure.value for figure in figures} == {100.0}


def test_an_image_that_was_turned_upright_has_the_annotated_size(coco):
    path = coco / "val2017/000000000101.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(path, exif=exif)
    change(coco, "val", lambda content: content["images"][0].update(width=48, height=64))
    data, _ = open_detection(coco, "faster-rcnn", "error")
    assert data.test.sizes[0].tolist() == [64, 48]

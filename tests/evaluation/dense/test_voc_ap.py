import numpy as np
import pytest

from virtex.evaluation.dense.objects import ObjectSplit
from virtex.evaluation.dense.voc_ap import (
    Detections,
    area_ap,
    eleven_point_ap,
    iou,
    judge_detections,
    voc_figures,
)

UNIT = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]


def hits(*flags):
    return np.array(flags, bool)


def objects(*boxes, difficult=()):
    marked = np.array([place in difficult for place in range(len(boxes))], bool)
    return {0: (np.array(boxes, np.float64), marked)}


def judge(found, known, threshold=0.5):
    return judge_detections([0] * len(found), np.array(found), known, threshold).tolist()


def test_iou_by_hand():
    others = np.array([UNIT, [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 5]], np.float64)
    assert iou(np.array(UNIT), others).tolist() == [1.0, 50 / 150, 0.0, 0.25]


def test_a_second_detection_of_an_object_is_wrong():
    assert judge([UNIT, UNIT, FAR], objects(UNIT)) == [True, False, False]


def test_the_threshold_itself_is_enough():
    half = [0.0, 0.0, 10.0, 5.0]
    assert judge([half], objects(UNIT)) == [True]
    assert judge([half], objects(UNIT), threshold=0.55) == [False]


def test_a_detection_belongs_to_the_object_that_it_overlaps_most_even_if_that_is_taken():
    near = [0.0, 0.0, 10.0, 9.0]
    assert judge([UNIT, UNIT], objects(UNIT, near)) == [True, False]


def test_detections_of_difficult_objects_do_not_count():
    assert judge([UNIT, UNIT, FAR], objects(UNIT, FAR, difficult=(0,))) == [True]
    assert judge([[90.0, 90.0, 95.0, 95.0]], objects(UNIT, difficult=(0,))) == [False]


@pytest.mark.parametrize(
    ("flags", "positives", "eleven", "area"),
    [
        ((True, True), 2, 1.0, 1.0),
        ((), 3, 0.0, 0.0),
        ((False, False), 1, 0.0, 0.0),
        # Recall 1/2 at precision 1, then 1 at 2/3: six of eleven recalls, and half of the area.
        ((True, False, True), 2, (6 + 5 * 2 / 3) / 11, 0.5 + 0.5 * 2 / 3),
        # One of two is never found: recalls up to 0.5.
        ((False, True), 2, 6 * 0.5 / 11, 0.25),
        # Recall 0.3 itself is reached by 3 of 10.
        ((True, True, True), 10, 4 / 11, 0.3),
    ],
)
def test_average_precision_by_hand(flags, positives, eleven, area):
    assert eleven_point_ap(hits(*flags), positives) == pytest.approx(eleven)
    assert area_ap(hits(*flags), positives) == pytest.approx(area)


def test_figures_are_means_over_the_classes_with_objects():
    test = ObjectSplit(
        paths=(),
        image_ids=np.array([1, 2]),
        sizes=np.full((2, 2), 100),
        ends=np.array([0, 2, 3]),
        boxes=np.array([UNIT, FAR, UNIT], np.float32),
        labels=np.array([1, 2, 1]),
        difficult=np.zeros(3, bool),
    )
    # Both objects of class 1 by the order of the scores, not of the list; class 2 is missed.
    found = Detections(
        images=np.array([1, 0, 0]),
        boxes=np.array([UNIT, UNIT, FAR]),
        labels=np.array([1, 1, 1]),
        scores=np.array([0.2, 0.9, 0.5]),
    )
    figures, lines = voc_figures(_with_paths(test), found, ["a", "b", "c"])
    values = {figure.metric: figure.value for figure in figures}
    assert values["voc_ap50"] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3) / 2)
    assert values["voc07_ap50"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11 / 2)
    assert values["voc_ap"] == pytest.approx(values["voc_ap50"])
    assert [line.split(":")[0] for line in lines] == ["a", "b"]


def _with_paths(test):
    from dataclasses import replace
    from pathlib import Path

    return replace(test, paths=(Path("1"), Path("2")))

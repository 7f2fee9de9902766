"""Average precision of boxes as the PASCAL VOC challenge computes it.

Source: Everingham et al., *The PASCAL Visual Object Classes (VOC) Challenge*, section 4.2; area
under the curve since VOC 2010. The mean over thresholds of IoU is that of detectron2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from virtex.evaluation.dense.objects import ObjectSplit
from virtex.evaluation.figures import Figure

Floats = npt.NDArray[np.float64]
Objects = dict[int, tuple[Floats, npt.NDArray[np.bool_]]]
"""The boxes (N, 4) of each image, and which of them are difficult (N,)."""

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True)
class Detections:
    """N detections: `images` (N,) are positions in the split, `boxes` (N, 4), `labels` from 1."""

    images: npt.NDArray[np.int64]
    boxes: Floats
    labels: npt.NDArray[np.int64]
    scores: Floats


def voc_figures(
    test: ObjectSplit, found: Detections, classes: Sequence[str]
) -> tuple[list[Figure], list[str]]:
    """Mean AP over the classes with test objects, in percent, and a line for each class.

    `voc07_` figures are 11-point AP, `voc_` figures the area; `ap50` and `ap75` are at an IoU of
    0.5 and 0.75, `ap` the mean over 0.5, 0.55, …, 0.95.
    """
    eleven, area, lines = [], [], []
    for label, name in enumerate(classes, start=1):
        objects, positives = _of_class(test, label)
        if not positives:
            continue
        mine = np.flatnonzero(found.labels == label)
        mine = mine[np.argsort(-found.scores[mine], kind="stable")]
        images, boxes = found.images[mine].tolist(), found.boxes[mine]
        curves = [judge_detections(images, boxes, objects, one) for one in THRESHOLDS]
        eleven.append([eleven_point_ap(hits, positives) for hits in curves])
        area.append([area_ap(hits, positives) for hits in curves])
        lines.append(
            f"{name}: AP50 {100 * eleven[-1][0]:.1f} (11 points), {100 * area[-1][0]:.1f} (area), "
            f"{positives} objects"
        )
    figures = []
    for prefix, values in (("voc07", eleven), ("voc", area)):
        mean = 100 * np.mean(values, axis=0)
        figures += [
            Figure(f"{prefix}_ap", float(mean.mean())),
            Figure(f"{prefix}_ap50", float(mean[0])),
            Figure(f"{prefix}_ap75", float(mean[THRESHOLDS.index(0.75)])),
        ]
    return figures, lines


def _of_class(test: ObjectSplit, label: int) -> tuple[Objects, int]:
    """The objects of a class by image, and how many of them are not difficult."""
    owners = np.repeat(np.arange(len(test)), np.diff(test.ends))
    of_class = np.flatnonzero(test.labels == label)
    objects: Objects = {}
    for image in np.unique(owners[of_class]).tolist():
        here = of_class[owners[of_class] == image]
        objects[image] = (test.boxes[here].astype(np.float64), test.difficult[here])
    return objects, int((~test.difficult[of_class]).sum())


def judge_detections(
    images: Sequence[int],
    boxes: Floats,
    objects: Objects,
    threshold: float,
) -> npt.NDArray[np.bool_]:
    """Whether each detection that counts is right, the highest score first.

    `images` (N,) and `boxes` (N, 4) are in that order, `objects` the boxes of each image and which
    of them are difficult. A detection belongs to the object that it overlaps most. It is right if
    their IoU is at least the threshold and no earlier one has taken the object; where the object is
    difficult, it does not count.
    """
    taken = {image: np.zeros(len(difficult), bool) for image, (_, difficult) in objects.items()}
    hits = []
    for image, box in zip(images, boxes, strict=True):
        if image not in objects:
            hits.append(False)
            continue
        candidates, difficult = objects[image]
        overlaps = iou(box, candidates)
        best = int(overlaps.argmax())
        if overlaps[best] < threshold:
            hits.append(False)
        elif not difficult[best]:
            hits.append(not taken[image][best])
            taken[image][best] = True
    return np.array(hits, bool)


def iou(box: Floats, others: Floats) -> Floats:
    """The intersection over union of a box (4,) with others (N, 4): (N,)."""
    corners = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = corners.clip(min=0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    overlap: Floats = shared / (areas - shared)
    return overlap


def _curve(hits: npt.NDArray[np.bool_], positives: int) -> tuple[Floats, Floats]:
    right = hits.cumsum()
    return right / positives, right / np.arange(1, len(hits) + 1)


def eleven_point_ap(hits: npt.NDArray[np.bool_], positives: int) -> float:
    """The mean, over recalls 0, 0.1, …, 1, of the highest precision at that recall or above."""
    right = hits.cumsum()
    _, precision = _curve(hits, positives)
    # In whole numbers: 0.3 as a fraction is above 3 of 10.
    reached = [precision[10 * right >= tenth * positives] for tenth in range(11)]
    return float(np.mean([values.max(initial=0.0) for values in reached]))


def area_ap(hits: npt.NDArray[np.bool_], positives: int) -> float:
    """The area under the curve of the highest precision at each recall or above."""
    recall, precision = _curve(hits, positives)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * highest).sum())

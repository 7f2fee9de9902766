"""Objects of a COCO tree: `annotations/instances_{train,val}2017.json` and its images."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from virtex.data.images import OnBadImage
from virtex.data.sources.coco import annotations_file, file_name
from virtex.data.sources.json_stream import integer, invalid_item, list_items, text
from virtex.errors import UserError, report_lines
from virtex.evaluation.dense.objects import (
    ObjectData,
    ObjectSplit,
    Outline,
    PackedOutlines,
    clipped,
    has_area,
)

Json = Mapping[str, Any]


@dataclass
class _File:
    """The lists of an annotation file; `images` holds name, height and width by image id."""

    path: Path
    images: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    annotations: list[Json] = field(default_factory=list)
    categories: dict[int, str] = field(default_factory=dict)


@dataclass
class _Objects:
    """The objects that are trained on, column by column, and how many were left out, and why."""

    image_ids: list[int] = field(default_factory=list)
    boxes: list[Sequence[float]] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    outlines: list[Outline] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def read_coco_objects(root: Path, *, masks: bool, on_bad_image: OnBadImage) -> ObjectData:
    """The objects of a COCO tree; with `masks` every one needs an outline.

    Crowds, boxes without area, and with `masks` objects without polygons, are not trained on; test
    objects are judged as the file lists them. Raises `UserError` for files that are missing or
    malformed or have different categories, and for objects of unknown images or categories unless
    bad images are skipped.
    """
    train, test = (
        _read(annotations_file(root, f"instances_{split}2017.json"), masks, on_bad_image)
        for split in ("train", "val")
    )
    if train.categories != test.categories:
        raise UserError(
            f"{root}: the categories of the two annotation files differ; they must have the same "
            "ids and names"
        )
    splits, lines = [], []
    for name, file in (("train", train), ("val", test)):
        split, found = _split(root / f"{name}2017", file, masks)
        splits.append(split)
        kind = "training" if name == "train" else "test"
        used = set(np.unique(split.labels).tolist())
        unused = [c for label, c in enumerate(file.categories.values(), 1) if label not in used]
        lines += [f"{count} {kind} objects {what}" for what, count in found.items()]
        lines += report_lines({f"categories have no {kind} object": unused})
    if masks:
        _check_outlines(test)
    without = np.diff(splits[1].ends) == 0
    lines += report_lines({"test images have no object": splits[1].image_ids[without]}, "image ids")
    return ObjectData(
        "coco",
        root,
        tuple(train.categories.values()),
        tuple(train.categories),
        splits[0],
        splits[1],
        _truth(test),
        tuple(lines),
    )


def _read(path: Path, masks: bool, on_bad_image: OnBadImage) -> _File:
    file = _File(path)
    for key, item in list_items(path):
        if key == "images":
            identity = integer(path, key, item, "id")
            size = (integer(path, key, item, "height"), integer(path, key, item, "width"))
            if identity in file.images:
                raise UserError(f"{path} gives the image id {identity} to several images")
            file.images[identity] = (file_name(path, key, item), *size)
        elif key == "annotations":
            file.annotations.append(_annotation(path, key, item, masks))
        elif key == "categories":
            identity = integer(path, key, item, "id")
            if identity in file.categories:
                raise UserError(f"{path} gives the category id {identity} to several categories")
            file.categories[identity] = text(path, key, item, "name")
    if not file.images or not file.categories:
        raise UserError(f"{path} lists no {'categories' if file.images else 'images'}")
    unknown_image = [a for a in file.annotations if a["image_id"] not in file.images]
    unknown_category = [a for a in file.annotations if a["category_id"] not in file.categories]
    left_out = report_lines(
        {
            "objects are of images that are not listed": [a["image_id"] for a in unknown_image],
            "objects are of categories that are not listed": [
                a["image_id"] for a in unknown_category
            ],
        },
        "image ids",
    )
    if left_out and on_bad_image == "error":
        raise UserError(
            f"{path}: {'; '.join(left_out)}; correct the file, or give --on-bad-image skip to "
            "leave them out"
        )
    if left_out:
        file.annotations = [
            one
            for one in file.annotations
            if one["image_id"] in file.images and one["category_id"] in file.categories
        ]
    return file


def _annotation(path: Path, key: str, item: object, masks: bool) -> Json:
    """The members of an annotation that are used, checked; with `masks` also its outline."""
    image, category = integer(path, key, item, "image_id"), integer(path, key, item, "category_id")
    assert isinstance(item, dict)
    box, area = item.get("bbox"), item.get("area")
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))):
        raise invalid_item(path, key, item, "'bbox', four finite numbers")
    if not _is_finite(area):
        raise invalid_item(path, key, item, "'area', a finite number")
    found = {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "area": area,
        "iscrowd": int(item.get("iscrowd") == 1),
    }
    segmentation = item.get("segmentation")
    if masks and _is_outline(segmentation):
        # As arrays: COCO's have 90 million coordinates, and numbers of Python take 32 bytes each.
        found["polygons"] = [np.array(polygon) for polygon in segmentation]
    elif masks and _is_run_length(segmentation):
        found["run_length"] = segmentation
    return found


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_outline(segmentation: object) -> TypeGuard[list[list[float]]]:
    """Whether it is a list of polygons of three points or more."""
    return (
        isinstance(segmentation, list)
        and bool(segmentation)
        and all(
            isinstance(polygon, list)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            and all(map(_is_finite, polygon))
            for polygon in segmentation
        )
    )


def _split(directory: Path, file: _File, masks: bool) -> tuple[ObjectSplit, Counter[str]]:
    labels = {identity: label for label, identity in enumerate(file.categories, start=1)}
    found = _Objects()
    for one in file.annotations:
        if one["iscrowd"]:
            found.left_out["are crowds: not trained on, and ignored in the test"] += 1
        elif masks and "polygons" not in one:
            found.left_out["have no polygons and are not trained on"] += 1
        else:
            x, y, width, height = one["bbox"]
            found.image_ids.append(one["image_id"])
            found.boxes.append((x, y, x + width, y + height))
            found.labels.append(labels[one["category_id"]])
            found.outlines.append(one["polygons"] if masks else ())
    image_ids = np.array(sorted(file.images), np.int64)
    sizes = np.array([file.images[identity][1:] for identity in image_ids.tolist()], np.int64)
    places = np.searchsorted(image_ids, np.array(found.image_ids, np.int64))
    boxes = np.array(found.boxes, np.float32).reshape(-1, 4)
    clipped(boxes, sizes[places])
    usable = has_area(boxes)
    if not usable.all():
        found.left_out["have a box without area and are not trained on"] += int((~usable).sum())
    order = np.flatnonzero(usable)[np.argsort(places[usable], kind="stable")]
    counts = np.bincount(places[order], minlength=len(image_ids))
    split = ObjectSplit(
        paths=tuple(directory / file.images[identity][0] for identity in image_ids.tolist()),
        image_ids=image_ids,
        sizes=sizes,
        ends=np.concatenate([[0], np.cumsum(counts)]),
        boxes=boxes[order],
        labels=np.array(found.labels, np.int64)[order],
        difficult=np.zeros(len(order), bool),
        outlines=PackedOutlines.pack(found.outlines[i] for i in order.tolist()) if masks else None,
    )
    return split, found.left_out


def _check_outlines(test: _File) -> None:
    """Raise `UserError` for test objects that pycocotools could not compare masks with."""
    without = [
        one["image_id"]
        for one in test.annotations
        if "polygons" not in one and "run_length" not in one
    ]
    if without:
        lines = report_lines({"objects have no polygons and no list of runs": without}, "image ids")
        raise UserError(
            f"{test.path}: {'; '.join(lines)}, but mask-rcnn is judged by masks; give --detector "
            "faster-rcnn for boxes alone"
        )
    # pycocotools trusts the codes, and would read or write beyond its memory.
    unfit = [
        one["image_id"]
        for one in test.annotations
        if "run_length" in one and not _fits(one["run_length"], test.images[one["image_id"]][1:])
    ]
    if unfit:
        lines = report_lines({"run-length codes do not fill their image": unfit}, "image ids")
        raise UserError(f"{test.path}: {'; '.join(lines)}; correct the file")


def _is_run_length(segmentation: object) -> bool:
    """Whether it is a list of the lengths of runs, as COCO has it; not the compressed form."""
    if not isinstance(segmentation, dict):
        return False
    counts, size = segmentation.get("counts"), segmentation.get("size")
    return isinstance(counts, list) and isinstance(size, list) and len(size) == 2


def _fits(code: Json, size: tuple[int, int]) -> bool:
    """Whether a run-length code covers every pixel of an image of this size exactly once."""
    lengths = code["counts"]
    whole = all(type(length) is int and length >= 0 for length in lengths)
    return code["size"] == list(size) and whole and sum(lengths) == size[0] * size[1]


def _truth(file: _File) -> dict[str, Any]:
    annotations = []
    for number, one in enumerate(file.annotations, start=1):
        annotation = {"id": number, **one}
        if "polygons" in annotation:
            annotation["segmentation"] = [line.tolist() for line in annotation.pop("polygons")]
        elif "run_length" in annotation:
            annotation["segmentation"] = annotation.pop("run_length")
        annotations.append(annotation)
    return {
        "images": [
            {"id": identity, "height": height, "width": width}
            for identity, (_, height, width) in file.images.items()
        ],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in file.categories.items()],
    }

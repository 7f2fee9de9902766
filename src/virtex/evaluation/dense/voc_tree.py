"""Objects of a VOC tree: `ImageSets/Main/{trainval,test}.txt`, `Annotations` and `JPEGImages`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from virtex.errors import UserError, first_few
from virtex.evaluation.dense.objects import ObjectData, ObjectSplit, clipped, has_area
from virtex.files import reading

_LARGEST_ANNOTATION = 4 << 20
"""Bytes; those of VOC have a few thousand."""


@dataclass(frozen=True)
class _Object:
    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class _Annotation:
    path: Path
    image: Path
    size: tuple[int, int]
    objects: tuple[_Object, ...]


def voc_directory(root: Path) -> Path | None:
    """The directory of VOC2007 at or below `root`; None if there is none."""
    places = (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007")
    return next((place for place in places if (place / "ImageSets" / "Main").is_dir()), None)


def read_voc_objects(root: Path) -> ObjectData:
    """The objects of a VOC2007 tree: trained on trainval, judged on test.

    If VOC2012 lies beside VOC2007, its trainval is trained on too. Difficult objects are trained
    on, as detectron2 does, and do not count in the test. Classes are sorted by name. Raises
    `UserError` for files that are missing or malformed and for a class without training objects.
    """
    voc2007 = voc_directory(root)
    if voc2007 is None:
        raise UserError(f"{root} is not a VOC2007 tree: it has no ImageSets/Main")
    voc2012 = voc2007.parent / "VOC2012"
    trained = [voc2007]
    if voc2007.name == "VOC2007" and (voc2012 / "ImageSets/Main/trainval.txt").is_file():
        trained.append(voc2012)
    train = [one for place in trained for one in _annotations(place, "trainval")]
    test = _annotations(voc2007, "test")
    names = {split: _names(found) for split, found in (("trainval", train), ("test", test))}
    classes = tuple(sorted(names["trainval"]))
    unknown = sorted(names["test"] - names["trainval"])
    if unknown or not classes:
        raise UserError(
            f"{voc2007}: no training image shows {first_few(unknown) or 'any object'}, so a "
            "detector could not find them in the test images"
        )
    splits, lines = [], []
    for kind, found in (("training", train), ("test", test)):
        split, left_out = _split(found, classes, first=1 if kind == "training" else len(train) + 1)
        splits.append(split)
        if left_out:
            lines.append(f"{left_out} {kind} objects have a box without area and are left out")
    absent = sorted(names["trainval"] - names["test"])
    if absent:
        lines.append(f"{len(absent)} classes have no test object ({first_few(absent)})")
    sources = " and ".join(f"trainval of {place.name}" for place in trained)
    difficult = [int(split.difficult.sum()) for split in splits]
    lines.insert(
        0,
        f"training images: {sources}; {difficult[0]} difficult objects are trained on, "
        f"{difficult[1]} do not count in the test",
    )
    ids = tuple(range(1, len(classes) + 1))
    truth = _truth(splits[1], classes)
    return ObjectData("voc", root, classes, ids, splits[0], splits[1], truth, tuple(lines))


def _names(annotations: Sequence[_Annotation]) -> set[str]:
    return {item.name for one in annotations for item in one.objects}


def _annotations(root: Path, split: str) -> list[_Annotation]:
    listed = root / "ImageSets" / "Main" / f"{split}.txt"
    with reading(listed):
        lines = listed.read_text(encoding="utf-8", errors="replace").splitlines()
    # Files of a single class have a second column, which does not matter here.
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise UserError(f"{listed} lists no images")
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise UserError(f"{listed} lists paths instead of names: {first_few(outside)}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{listed} lists images more than once: {first_few(repeated)}")
    paths = [root / "Annotations" / f"{name}.xml" for name in names]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(paths)} annotations do not exist: {first_few(missing)}; "
            f"{listed} lists an image for each"
        )
    return [_annotation(path, root) for path in paths]


def _annotation(path: Path, root: Path) -> _Annotation:
    with reading(path):
        content = path.read_bytes()
    # Entities could make a small file expand without bound; VOC has no document type.
    if len(content) > _LARGEST_ANNOTATION or b"<!DOCTYPE" in content:
        raise UserError(f"{path} is not a VOC annotation: it is too large or has a document type")
    try:
        tree = ElementTree.fromstring(content)
        size = (int(_text(tree, "size/height")), int(_text(tree, "size/width")))
        objects = tuple(_object(element) for element in tree.iter("object"))
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(f"{path} is not a VOC annotation: {error}") from error
    return _Annotation(path, root / "JPEGImages" / f"{path.stem}.jpg", size, objects)


def _object(element: ElementTree.Element) -> _Object:
    # Pixels count from 1 and the last one is inside.
    corners = [float(_text(element, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")]
    if not np.isfinite(corners).all():
        raise ValueError("a corner of a box is not finite")
    x1, y1, x2, y2 = corners
    difficult = element.findtext("difficult", "0").strip() == "1"
    return _Object(_text(element, "name"), (x1 - 1, y1 - 1, x2, y2), difficult)


def _text(element: ElementTree.Element, place: str) -> str:
    found = element.findtext(place)
    if found is None or not found.strip():
        raise ValueError(f"<{element.tag}> has no {place}")
    return found.strip()


def _split(
    annotations: Sequence[_Annotation], classes: Sequence[str], first: int
) -> tuple[ObjectSplit, int]:
    """The split, and the number of objects whose boxes have no area; ids count from `first`."""
    sizes = np.array([one.size for one in annotations], np.int64)
    owners = np.repeat(np.arange(len(annotations)), [len(one.objects) for one in annotations])
    objects = [item for one in annotations for item in one.objects]
    boxes = np.array([item.box for item in objects], np.float32).reshape(-1, 4)
    clipped(boxes, sizes[owners])
    usable = has_area(boxes)
    counts = np.bincount(owners[usable], minlength=len(annotations))
    labels = np.array([classes.index(item.name) + 1 for item in objects], np.int64)
    split = ObjectSplit(
        paths=tuple(one.image for one in annotations),
        image_ids=np.arange(first, first + len(annotations)),
        sizes=sizes,
        ends=np.concatenate([[0], np.cumsum(counts)]),
        boxes=boxes[usable],
        labels=labels[usable],
        difficult=np.array([item.difficult for item in objects], bool)[usable],
    )
    return split, int((~usable).sum())


def _truth(split: ObjectSplit, classes: Sequence[str]) -> dict[str, Any]:
    """The objects as pycocotools reads them; difficult ones are crowds, which it ignores."""
    owners = np.repeat(split.image_ids, np.diff(split.ends)).tolist()
    annotations = []
    for row, (x1, y1, x2, y2) in enumerate(split.boxes.tolist()):
        annotations.append(
            {
                "id": row + 1,
                "image_id": owners[row],
                "category_id": int(split.labels[row]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(split.difficult[row]),
            }
        )
    return {
        "images": [
            {"id": identity, "height": height, "width": width}
            for identity, (height, width) in zip(
                split.image_ids.tolist(), split.sizes.tolist(), strict=True
            )
        ],
        "annotations": annotations,
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
    }

"""Images with boxes, labels and outlines of their objects, and what is left out of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from virtex.data.images import OnBadImage, upright_size
from virtex.errors import UserError, first_few, report_lines

SMALLEST_SIDE = 0.1
"""In pixels: a box with a shorter side has no area that a detector could learn."""

Advance = Callable[[int], None]
Outline = Sequence[npt.NDArray[np.floating[Any]]]
"""Polygons x1, y1, x2, y2, …, which together cover an object."""


@dataclass(frozen=True)
class PackedOutlines:
    """The outlines of M objects in three arrays, which loader workers share.

    The polygons of object i are those from `objects[i]` to `objects[i + 1]`, and the coordinates of
    polygon j those from `polygons[j]` to `polygons[j + 1]`.
    """

    objects: npt.NDArray[np.int64]
    polygons: npt.NDArray[np.int64]
    coordinates: npt.NDArray[np.float32]

    @classmethod
    def pack(cls, outlines: Iterable[Outline]) -> "PackedOutlines":
        """The outlines in order."""
        objects, lengths, parts = [0], [0], [np.empty(0, np.float32)]
        for outline in outlines:
            for polygon in outline:
                lengths.append(len(polygon))
                parts.append(np.asarray(polygon, np.float32))
            objects.append(len(lengths) - 1)
        return cls(np.array(objects), np.cumsum(lengths), np.concatenate(parts))

    def __getitem__(self, index: int) -> list[npt.NDArray[np.float32]]:
        """The polygons of an object, (2P,) each."""
        first, last = self.objects[index : index + 2]
        ends = self.polygons[first : last + 1]
        return [self.coordinates[start:end] for start, end in pairwise(ends.tolist())]


@dataclass(frozen=True)
class ObjectSplit:
    """N images and their M objects; those of image i are from `ends[i]` to `ends[i + 1]`.

    `sizes` (N, 2) are heights and widths, `boxes` (M, 4) float32, `labels` (M,) from 1. `difficult`
    (M,) objects count as neither found nor missed. `outlines` is None where there are only boxes.
    """

    paths: tuple[Path, ...]
    image_ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    difficult: npt.NDArray[np.bool_]
    outlines: PackedOutlines | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def objects(self, image: int) -> slice:
        """The places of an image's objects."""
        return slice(int(self.ends[image]), int(self.ends[image + 1]))

    def select(self, kept: npt.NDArray[np.bool_]) -> "ObjectSplit":
        """The images where `kept` (N,) is true, with their objects."""
        owners = np.repeat(np.arange(len(self)), np.diff(self.ends))
        objects = np.flatnonzero(kept[owners])
        outlines = self.outlines
        return replace(
            self,
            paths=tuple(path for path, keep in zip(self.paths, kept, strict=True) if keep),
            image_ids=self.image_ids[kept],
            sizes=self.sizes[kept],
            ends=np.concatenate([[0], np.cumsum(np.diff(self.ends)[kept])]),
            boxes=self.boxes[objects],
            labels=self.labels[objects],
            difficult=self.difficult[objects],
            outlines=None
            if outlines is None
            else PackedOutlines.pack(outlines[index] for index in objects.tolist()),
        )


@dataclass(frozen=True)
class ObjectData:
    """Both splits of a data set, `truth` of the test split as pycocotools reads it, and findings.

    `category_ids` are those of `classes` in `truth`. `report` has a line for everything that was
    left out or assumed.
    """

    kind: Literal["voc", "coco"]
    root: Path
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    train: ObjectSplit
    test: ObjectSplit
    truth: Mapping[str, Any]
    report: tuple[str, ...]


def clipped(boxes: npt.NDArray[np.float32], sizes: npt.NDArray[np.int64]) -> None:
    """Clip boxes (M, 4) in place to the (height, width) of their images, (M, 2)."""
    limits = sizes[:, [1, 0, 1, 0]].astype(np.float32)
    np.clip(boxes, 0, limits, out=boxes)


def has_area(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether both sides of each box (M, 4) are at least `SMALLEST_SIDE`."""
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray((sides >= SMALLEST_SIDE).all(axis=1))


def drop_unusable_images(
    data: ObjectData, on_bad_image: OnBadImage, advance: Advance = lambda _: None
) -> ObjectData:
    """Leave out images that cannot be opened or have another size than annotated.

    Training images without an object are left out too. Only headers are read; `advance` counts
    them. Raises `UserError` that names bad images unless they are skipped, for images in both
    splits, and for a split of which nothing remains.
    """
    shared = sorted(set(data.train.paths) & set(data.test.paths))
    if shared:
        raise UserError(
            f"{data.root}: {len(shared)} images are in both splits ({first_few(shared, 2)}); list "
            "each of them once"
        )
    problems = [_problems(split, advance) for split in (data.train, data.test)]
    bad = [problem for found in problems for problem in found.values()]
    if bad and on_bad_image == "error":
        total = len(data.train) + len(data.test)
        raise UserError(
            f"{len(bad)} of {total} images cannot be used: {first_few(bad)}; repair or remove them,"
            " or give --on-bad-image skip to leave such images out"
        )
    train, test = (
        split.select(np.array([row not in found for row in range(len(split))], bool))
        for split, found in zip((data.train, data.test), problems, strict=True)
    )
    empty = np.diff(train.ends) == 0
    lines = report_lines(
        {
            "images cannot be used and are left out": bad,
            "training images have no object and are left out": train.image_ids[empty],
        }
    )
    train = train.select(~empty)
    for name, split in (("training", train), ("test", test)):
        if not len(split):
            raise UserError(f"{data.root} has no {name} image that can be used; add some")
    if test.difficult.all():
        raise UserError(f"{data.root}: the test images have no object that a detector could find")
    kept = replace(data, train=train, report=(*data.report, *lines))
    return with_test(kept, test)


def with_test(data: ObjectData, test: ObjectSplit) -> ObjectData:
    """The data with a selection of its test images, in `truth` as well."""
    ids = set(test.image_ids.tolist())
    truth = {
        **data.truth,
        "images": [image for image in data.truth["images"] if image["id"] in ids],
        "annotations": [one for one in data.truth["annotations"] if one["image_id"] in ids],
    }
    return replace(data, test=test, truth=truth)


def _problems(split: ObjectSplit, advance: Advance) -> dict[int, str]:
    """What is wrong with images, by position."""
    found = {}
    for row, (path, size) in enumerate(zip(split.paths, split.sizes.tolist(), strict=True)):
        problem = _problem(path, tuple(size))
        if problem is not None:
            found[row] = problem
        advance(1)
    return found


def _problem(path: Path, annotated: tuple[int, ...]) -> str | None:
    if not path.is_file():
        return f"{path} does not exist"
    try:
        height, width = upright_size(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{path} is not an image that can be read ({error})"
    if (height, width) != annotated:
        return (
            f"{path} has {width} x {height} pixels, but is annotated as "
            f"{annotated[1]} x {annotated[0]}"
        )
    return None

"""Labelled images in the forms in which people keep them: directories, VOC, COCO, a table.

Images have one label each, or any number of several. A split's labels are then (N,) int64, the
index of the class, or (N, K) int8: 1 present, -1 absent, 0 unknown or only difficult objects.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Literal

import numpy as np

from virtex.data.images import IMAGE_EXTENSIONS, BadImage
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.sources.find_images import find_images
from virtex.data.sources.labelled_table import TEST_SPLITS, Labels, read_labelled_table
from virtex.data.sources.separated_rows import DELIMITERS
from virtex.errors import UserError, first_few, report_lines
from virtex.files import reading

Kind = Literal["imagefolder", "voc", "coco", "table"]

_FORMS = (
    "expected a directory with train/CLASS/IMAGE and val/CLASS/IMAGE, a VOC2007 tree, a COCO tree "
    "with annotations/instances_{train,val}2017.json, or a .csv or .tsv file with the columns "
    "image, optionally split, and one or several labels"
)


@dataclass(frozen=True)
class LabelledImages:
    """The image files of a split and their labels."""

    paths: tuple[Path, ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class LabelledData:
    """A training and a test split with the same classes.

    `report` has a line for everything that was left out or assumed.
    """

    kind: Kind
    root: Path
    classes: tuple[str, ...]
    train: LabelledImages
    test: LabelledImages
    report: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """Whether an image has any number of labels instead of exactly one."""
        return self.train.labels.ndim == 2

    @property
    def directory(self) -> Path:
        """The directory that paths are relative to."""
        return self.root if self.root.is_dir() else self.root.parent


def read_labelled(root: Path, seed: int = 0) -> LabelledData:
    """The labelled images at a path, in the form that is found there.

    `seed` draws the test split of a table that names none. Raises `UserError` for an unknown form,
    a missing split, classes that differ between the splits, a class without images, and images
    that are in both splits.
    """
    if root.is_file() and root.suffix.lower() in DELIMITERS:
        data = _table(root, seed)
    elif not root.is_dir():
        raise UserError(f"{root}: no such directory or table; {_FORMS}")
    elif (voc := _voc_root(root)) is not None:
        data = _voc(voc)
    elif (root / "annotations" / "instances_train2017.json").is_file():
        data = _coco(root)
    elif (root / "train").is_dir():
        data = _image_folder(root)
    else:
        raise UserError(f"{root}: {_FORMS}")
    _check_classes(data)
    return _check_repetition(data)


def _check_classes(data: LabelledData) -> None:
    """Raise `UserError` where a class has no image in a split."""
    lacking = []
    for split, images in (("training", data.train), ("test", data.test)):
        if not len(images):
            rows = f"add rows whose split is {'train' if split == 'training' else 'val'}"
            raise UserError(
                f"{data.root} has no {split} images; {rows if data.kind == 'table' else _FORMS}"
            )
        if data.several:
            counts = (images.labels == 1).sum(axis=0)
        else:
            counts = np.bincount(images.labels, minlength=len(data.classes))
        empty = [name for name, count in zip(data.classes, counts, strict=True) if not count]
        if empty:
            lacking.append(f"{len(empty)} without {split} images ({first_few(empty)})")
    if lacking:
        raise UserError(
            f"{data.root}: of {len(data.classes)} classes there are {' and '.join(lacking)}; every "
            "class needs images in both splits, so add some or remove these classes"
        )
    if len(data.classes) < 2 and not data.several:
        raise UserError(f"{data.root} has only the class {data.classes[0]}; expected at least two")


def _check_repetition(data: LabelledData) -> LabelledData:
    """Report images that are listed twice in a split.

    Raises `UserError` for images that are in both splits or have different labels.
    """
    shared = sorted(set(data.train.paths) & set(data.test.paths))
    if shared:
        raise UserError(
            f"{data.root}: {len(shared)} images are in both splits ({first_few(shared, 2)}); list "
            "each of them once"
        )
    counts = Counter((*data.train.paths, *data.test.paths))
    repeated = [path for path, count in counts.items() if count > 1]
    known: dict[Path, object] = {}
    conflicting = {
        path
        for images in (data.train, data.test)
        for path, label in zip(images.paths, images.labels.tolist(), strict=True)
        if known.setdefault(path, label) != label
    }
    if conflicting:
        raise UserError(
            f"{data.root}: {len(conflicting)} images are listed several times with different "
            f"labels ({first_few(sorted(conflicting), 2)}); list each of them once"
        )
    lines = report_lines({"images are listed more than once and counted as often": repeated})
    return replace(data, report=(*data.report, *lines))


# A directory for each class


def _image_folder(root: Path) -> LabelledData:
    test = next((name for name in TEST_SPLITS if (root / name).is_dir()), None)
    if test is None:
        raise UserError(f"{root} has train/ but no val/ or test/ with labelled images")
    found = {split: _class_directories(root / split) for split in ("train", test)}
    names = {split: sorted(directories) for split, directories in found.items()}
    if names["train"] != names[test]:
        only = {
            split: set(names[split]) - set(names[other])
            for split, other in (("train", test), (test, "train"))
        }
        parts = [f"{len(v)} only in {k}/ ({first_few(sorted(v))})" for k, v in only.items() if v]
        raise UserError(
            f"{root} has {len(names['train'])} classes in train/ and {len(names[test])} in {test}/:"
            f" {', '.join(parts)}; both need the same directories"
        )
    classes = tuple(names["train"])
    others: Counter[str] = Counter()
    train_images, test_images = (
        _folder_split(found[split], classes, others) for split in ("train", test)
    )
    report: tuple[str, ...] = ()
    if others:
        kinds = ", ".join(f"{count} *{kind}" for kind, count in others.most_common(8))
        report = (f"{others.total()} files without an image's extension were ignored: {kinds}",)
    return LabelledData("imagefolder", root, classes, train_images, test_images, report)


def _class_directories(root: Path) -> dict[str, Path]:
    with reading(root):
        return {path.name: path for path in root.iterdir() if path.is_dir()}


def _folder_split(
    directories: Mapping[str, Path], classes: Sequence[str], others: Counter[str]
) -> LabelledImages:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for path in find_images([directories[name]]):
            if isinstance(path, BadImage):
                if path.path != directories[name]:
                    raise UserError(str(path))
            elif path.suffix[1:].lower() in IMAGE_EXTENSIONS:
                paths.append(path)
                labels.append(label)
            else:
                others[path.suffix] += 1
    return LabelledImages(tuple(paths), np.array(labels, np.int64))


# VOC 2007


def _voc_root(root: Path) -> Path | None:
    places = (root, root / "VOC2007", root / "VOCdevkit" / "VOC2007")
    return next((place for place in places if (place / "ImageSets" / "Main").is_dir()), None)


def _voc(root: Path) -> LabelledData:
    sets = root / "ImageSets" / "Main"
    classes = tuple(
        sorted(path.stem.removesuffix("_trainval") for path in sets.glob("*_trainval.txt"))
    )
    if not classes:
        raise UserError(f"{sets} holds no CLASS_trainval.txt")
    train, test = (_voc_split(root, sets, classes, split) for split in ("trainval", "test"))
    return LabelledData("voc", root, classes, train, test)


def _voc_split(root: Path, sets: Path, classes: Sequence[str], split: str) -> LabelledImages:
    columns = [_voc_column(sets / f"{name}_{split}.txt") for name in classes]
    names = list(columns[0])
    for name, column in zip(classes, columns, strict=True):
        if list(column) != names:
            raise UserError(
                f"{sets / f'{name}_{split}.txt'} lists other images than the first class"
            )
    labels = np.array([list(column.values()) for column in columns], np.int8).T
    return LabelledImages(tuple(root / "JPEGImages" / f"{name}.jpg" for name in names), labels)


def _voc_column(path: Path) -> dict[str, int]:
    """The label of each image in a file of lines `NAME 1`, `NAME -1` or `NAME 0` (difficult)."""
    if not path.is_file():
        raise UserError(f"{path} is missing: every class needs a file for trainval and for test")
    column: dict[str, int] = {}
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        match line.split():
            case [name, ("1" | "0" | "-1") as label]:
                column[name] = int(label)
            case []:
                pass
            case _:
                raise UserError(f"{path}, line {number}: expected an image and 1, 0 or -1")
    return column


# COCO


def _coco(root: Path) -> LabelledData:
    train, test = (CocoCategories(root, split) for split in ("train", "val"))
    if train.categories != test.categories:
        raise UserError(
            f"{root}: the categories of the two annotation files differ; they must be the same, in "
            "the same order"
        )
    splits = [_coco_split(records) for records in (train, test)]
    used = np.logical_and(*((images.labels == 1).any(axis=0) for images in splits))
    names = np.array(train.categories)
    if not used.any():
        raise UserError(f"{root}: no category has images in both splits")
    train_images, test_images = (
        LabelledImages(images.paths, images.labels[:, used]) for images in splits
    )
    unused = {"categories have no image in one of the splits": names[~used].tolist()}
    report = report_lines(unused, "categories")
    return LabelledData(
        "coco", root, tuple(names[used].tolist()), train_images, test_images, report
    )


def _coco_split(records: CocoCategories) -> LabelledImages:
    labels = np.full((len(records), len(records.categories)), -1, np.int8)
    for row in range(len(records)):
        labels[row, [index - 1 for index in records[row].categories]] = 1
    return LabelledImages(tuple(records.path(row) for row in range(len(records))), labels)


# A table


def _table(path: Path, seed: int) -> LabelledData:
    table = read_labelled_table(path, seed)
    train, test = (
        LabelledImages(tuple(compress(table.images, chosen)), table.labels[chosen])
        for chosen in (~table.tested, table.tested)
    )
    return LabelledData("table", path, table.classes, train, test, table.report)

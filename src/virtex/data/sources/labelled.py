"""Labelled images in the forms in which people keep them: directories, VOC, COCO, a table.

Images have one label each, or any number of several. A split's labels are then (N,) int64, the
index of the class, or (N, K) int8: 1 present, -1 absent, 0 unknown or only difficult objects.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.sources.separated_rows import DELIMITERS, IMAGE_COLUMNS, separated_rows
from virtex.errors import UserError, first_few, report_lines
from virtex.files import reading

Labels = npt.NDArray[np.int64] | npt.NDArray[np.int8]
Kind = Literal["imagefolder", "voc", "coco", "table"]

_TEST_DIRECTORIES = ("val", "test", "valid", "validation")
_FORMS = (
    "expected a directory with train/CLASS/IMAGE and val/CLASS/IMAGE, a VOC2007 tree, a COCO tree "
    "with annotations/instances_{train,val}2017.json, or a .csv or .tsv file with the columns "
    "image, split and one or several labels"
)
_PRESENCE = {"1": 1, "0": -1, "": 0}
"""What the cells of several label columns mean."""


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


def read_labelled(root: Path) -> LabelledData:
    """The labelled images at a path, in the form that is found there.

    Raises `UserError` for an unknown form, a missing split, classes that differ between the splits,
    and a class without images.
    """
    if root.is_file() and root.suffix.lower() in DELIMITERS:
        data = _table(root)
    elif not root.is_dir():
        raise UserError(f"--data {root}: no such directory or table; {_FORMS}")
    elif (voc := _voc_root(root)) is not None:
        data = _voc(voc)
    elif (root / "annotations" / "instances_train2017.json").is_file():
        data = _coco(root)
    elif (root / "train").is_dir():
        data = _image_folder(root)
    else:
        raise UserError(f"--data {root}: {_FORMS}")
    _check_classes(data)
    return data


def _check_classes(data: LabelledData) -> None:
    """Raise `UserError` where a class has no image in a split."""
    lacking = []
    for split, images in (("training", data.train), ("test", data.test)):
        if not len(images):
            raise UserError(f"{data.root} has no {split} images; {_FORMS}")
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


# A directory for each class


def _image_folder(root: Path) -> LabelledData:
    test = next((name for name in _TEST_DIRECTORIES if (root / name).is_dir()), None)
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
        for path in sorted(directories[name].rglob("*")):
            if path.suffix[1:].lower() in IMAGE_EXTENSIONS:
                paths.append(path)
                labels.append(label)
            elif path.is_file():
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


def _table(path: Path) -> LabelledData:
    rows = separated_rows(path)
    _, names = next(rows, (0, []))
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    columns = [name for name in names if name not in (image, "split")]
    if image is None or "split" not in names or not columns:
        raise UserError(
            f"{path} has the columns {', '.join(map(repr, names)) or 'none'}; expected 'image', "
            "'split' (train or test) and one or several label columns"
        )
    values = [_cells(path, number, names, row) for number, row in rows if row]
    splits = {"train": "train", **dict.fromkeys(_TEST_DIRECTORIES, "test")}
    parts: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for number, row in values:
        if row["split"] not in splits:
            raise UserError(
                f"{path}, line {number}: the split is {row['split']!r}; expected train, val or test"
            )
        parts[splits[row["split"]]].append(row)
    if len(columns) == 1:
        classes, label = _one_column(columns[0], [row for _, row in values])
    else:
        classes, label = tuple(columns), _several_columns(path, columns, values)

    def images(rows: Sequence[dict[str, str]]) -> LabelledImages:
        return LabelledImages(tuple(path.parent / row[image] for row in rows), label(rows))

    return LabelledData("table", path, classes, images(parts["train"]), images(parts["test"]))


_Rows = Sequence[Mapping[str, str]]


def _cells(
    path: Path, number: int, names: Sequence[str], row: Sequence[str]
) -> tuple[int, dict[str, str]]:
    if len(row) != len(names):
        raise UserError(
            f"{path}, line {number}: the row has {len(row)} values for {len(names)} columns"
        )
    return number, {name: value.strip() for name, value in zip(names, row, strict=True)}


def _one_column(column: str, rows: _Rows) -> tuple[tuple[str, ...], Callable[[_Rows], Labels]]:
    classes = tuple(sorted({row[column] for row in rows}))
    index = {name: number for number, name in enumerate(classes)}
    return classes, lambda rows: np.array([index[row[column]] for row in rows], np.int64)


def _several_columns(
    path: Path, columns: Sequence[str], values: Iterable[tuple[int, Mapping[str, str]]]
) -> Callable[[_Rows], Labels]:
    for number, row in values:
        for column in columns:
            if row[column] not in _PRESENCE:
                raise UserError(
                    f"{path}, line {number}: '{column}' is {row[column]!r}; with several label "
                    "columns expected 1 (present), 0 (absent) or nothing (unknown)"
                )
    return lambda rows: np.array(
        [[_PRESENCE[row[column]] for column in columns] for row in rows], np.int8
    ).reshape(-1, len(columns))

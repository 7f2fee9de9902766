"""Labelled images as torchvision's ImageFolder lays them out: a directory a class."""

from dataclasses import dataclass
from pathlib import Path

from virtex.errors import UserError


@dataclass(frozen=True)
class LabelledImages:
    """Image files and the index of each one's class in `classes`."""

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: tuple[int, ...]


def image_folder(root: Path) -> LabelledImages:
    """The images of `root`/CLASS/*, both sorted by name; raises `UserError` where there is none."""
    directories = sorted(path for path in root.glob("*") if path.is_dir())
    files = [
        (path, label)
        for label, directory in enumerate(directories)
        for path in sorted(directory.iterdir())
        if path.is_file()
    ]
    if not files:
        raise UserError(f"{root} holds no images; expected {root}/CLASS/IMAGE, a directory a class")
    return LabelledImages(
        classes=tuple(path.name for path in directories),
        paths=tuple(path for path, _ in files),
        labels=tuple(label for _, label in files),
    )

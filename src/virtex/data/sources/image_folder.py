"""Labelled images in the layout of torchvision's ImageFolder: one directory for each class."""

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
    """The images of `root`/CLASS/*, both sorted by name; raises `UserError` if there are none."""
    directories = sorted(path for path in root.glob("*") if path.is_dir())
    files = [
        (path, label)
        for label, directory in enumerate(directories)
        for path in sorted(directory.iterdir())
        if path.is_file()
    ]
    if not files:
        raise UserError(f"{root} contains no images; expected files {root}/CLASS/IMAGE")
    return LabelledImages(
        classes=tuple(path.name for path in directories),
        paths=tuple(path for path, _ in files),
        labels=tuple(label for _, label in files),
    )

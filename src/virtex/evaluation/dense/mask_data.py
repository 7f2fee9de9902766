"""Images with a class for each pixel: `{train,val}/images` and `{train,val}/masks`.

The mask of an image has its name without the extension. Masks are 8-bit images of indices, grey or
with a palette; IGNORED marks pixels that do not count.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from virtex.data.images import IMAGE_EXTENSIONS, upright_size
from virtex.errors import UserError, first_few
from virtex.files import reading

IGNORED = 255
_LAYOUT = "expected train/images, train/masks, val/images and val/masks"
_MOST_NAMED = 20


@dataclass(frozen=True)
class MaskSplit:
    """The image and the mask of each example, and the pixels of each class (K,)."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    pixels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class MaskData:
    """Both splits with the same classes; `report` has a line for each finding."""

    root: Path
    classes: tuple[str, ...]
    train: MaskSplit
    test: MaskSplit
    sha256: str
    report: tuple[str, ...]


def read_mask(path: Path) -> npt.NDArray[np.uint8]:
    """The indices of a mask, (H, W) uint8; raises ValueError if it holds none."""
    with Image.open(path) as image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"its mode is {image.mode}, not 8-bit indices (grey or a palette)")
        return np.array(image)


def read_mask_data(
    root: Path, names_file: Path | None, advance: Callable[[int], None] = lambda _: None
) -> MaskData:
    """Read every mask and the header of every image; `advance` counts the images.

    Raises `UserError` that names all problems: an image or a mask without the other, one that
    cannot be read, different sizes, an index without a class, and a split without labelled pixels.
    """
    names = None if names_file is None else _names(names_file)
    problems: list[str] = []
    digest = hashlib.sha256()
    counts: list[npt.NDArray[np.int64]] = []
    pairs = []
    for split in ("train", "val"):
        found = _pairs(root, split, problems)
        pairs.append(found)
        total = np.zeros(256, np.int64)
        before = len(problems)
        for image, mask in found:
            content = _checked(image, mask, names, problems)
            if content is not None:
                total += np.bincount(content.ravel(), minlength=256)
                digest.update(f"{split} {image.name} {image.stat().st_size}\n".encode())
                digest.update(np.ascontiguousarray(content).data)
            advance(1)
        if found and len(problems) == before and not total[:IGNORED].any():
            problems.append(
                f"{root / split / 'masks'} has no labelled pixel ({IGNORED} everywhere)"
            )
        counts.append(total[:IGNORED])
    if problems:
        more = len(problems) - _MOST_NAMED
        shown = "; ".join(problems[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(f"--data {root}: {len(problems)} problem(s): {shown}")
    used = np.flatnonzero(counts[0] + counts[1])
    classes = names or tuple(map(str, range(int(used[-1]) + 1)))
    if len(classes) < 2:
        raise UserError(f"--data {root}: the masks have one class; expected at least two")
    train, test = (
        MaskSplit(
            tuple(image for image, _ in found),
            tuple(mask for _, mask in found),
            total[: len(classes)],
        )
        for found, total in zip(pairs, counts, strict=True)
    )
    return MaskData(root, classes, train, test, digest.hexdigest(), _report(classes, train, test))


def _report(classes: Sequence[str], train: MaskSplit, test: MaskSplit) -> tuple[str, ...]:
    lines = [
        f"{len(classes)} classes: {len(train)} training and {len(test)} test images with masks"
    ]
    for kind, split in (("training", train), ("test", test)):
        absent = [name for name, count in zip(classes, split.pixels, strict=True) if not count]
        if absent:
            lines.append(f"{len(absent)} classes have no {kind} pixel ({first_few(absent)})")
    return tuple(lines)


def _names(path: Path) -> tuple[str, ...]:
    with reading(path):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(f"--mask-classes {path} is not UTF-8 text: {error}") from error
    names = [line.strip() for line in lines if line.strip()]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated or not 2 <= len(names) <= IGNORED:
        what = f"names {repeated[0]!r} twice" if repeated else f"has {len(names)} names"
        raise UserError(f"--mask-classes {path} {what}; expected 2 to {IGNORED} different names")
    return tuple(names)


def _pairs(root: Path, split: str, problems: list[str]) -> list[tuple[Path, Path]]:
    """The images of a split with their masks, by name; what has no counterpart is a problem."""
    by_stem: list[dict[str, Path]] = []
    for kind in ("images", "masks"):
        directory = root / split / kind
        if not directory.is_dir():
            problems.append(f"{directory} does not exist; {_LAYOUT}")
            return []
        with reading(directory):
            paths = sorted(
                path for path in directory.iterdir() if path.suffix[1:].lower() in IMAGE_EXTENSIONS
            )
        if not paths:
            problems.append(f"{directory} holds no images")
        stems = Counter(path.stem for path in paths)
        problems += [
            f"{directory} has {count} files named {stem!r}"
            for stem, count in stems.items()
            if count > 1
        ]
        by_stem.append({path.stem: path for path in paths})
    images, masks = by_stem
    problems += [f"{images[stem]} has no mask" for stem in sorted(images.keys() - masks.keys())]
    problems += [f"{masks[stem]} has no image" for stem in sorted(masks.keys() - images.keys())]
    return [(images[stem], masks[stem]) for stem in sorted(images.keys() & masks.keys())]


def _checked(
    image: Path, mask: Path, names: Sequence[str] | None, problems: list[str]
) -> npt.NDArray[np.uint8] | None:
    """The indices of a mask that fits its image; otherwise adds to `problems`."""
    try:
        indices = read_mask(mask)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problems.append(f"{mask} is not a mask that can be read ({error})")
        return None
    try:
        height, width = upright_size(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        problems.append(f"{image} is not an image that can be read ({error})")
        return None
    if indices.shape != (height, width):
        problems.append(
            f"{mask} has {indices.shape[1]} x {indices.shape[0]} pixels, its image {width} x "
            f"{height}"
        )
        return None
    if names is not None:
        outside = np.setdiff1d(np.unique(indices), [*range(len(names)), IGNORED])
        if len(outside):
            problems.append(
                f"{mask} has the indices {first_few(outside.tolist())}, but there are "
                f"{len(names)} classes"
            )
            return None
    return indices

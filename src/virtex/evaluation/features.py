"""Pooled features of images from a frozen backbone, computed once and cached in a file."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from virtex.data.dataset import Key
from virtex.data.images import DEFAULT_LIMITS, BadImage, ImageLimits, ImageSource, read_image
from virtex.data.loader import validation_batches
from virtex.data.transforms import Augmented, CenterCrop, SmallestResize
from virtex.errors import UserError
from virtex.files import write_whole
from virtex.models.modes import evaluating
from virtex.training.precision import Precision

_BATCH = 64
_VERSION = 1
"""Of the computation; part of the cache's key."""


@dataclass(frozen=True)
class Preprocessing:
    """The shorter side is resized to `resize` pixels, then the middle square of `crop` is taken."""

    resize: int
    crop: int

    def __call__(self, source: ImageSource, limits: ImageLimits) -> npt.NDArray[np.uint8]:
        """(crop, crop, 3) uint8 RGB."""
        unused = np.random.default_rng(0)  # these two transforms use no randomness
        augmented = Augmented(read_image(source, limits))
        for step in (SmallestResize(self.resize), CenterCrop(self.crop)):
            augmented = step(augmented, unused)
        return augmented.image


def center_crops(images: Sequence[ImageSource], size: int) -> Tensor:
    """(N, 3, size, size) uint8 RGB: shorter side resized to `size`, then the central square."""
    crops = [Preprocessing(size, size)(image, DEFAULT_LIMITS) for image in images]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Features:
    """The features of images, in the order of their paths.

    `values` is (N, C) float32. `kept` (N,) are the positions of the images that could be read, and
    `bad` names each of the others with the reason.
    """

    values: Tensor
    kept: npt.NDArray[np.int64]
    bad: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureSettings:
    """How features are computed; nothing of it but `precision` changes them."""

    precision: Precision
    device: torch.device
    workers: int = 0
    limits: ImageLimits = DEFAULT_LIMITS
    cache: Path | None = None
    """The directory of cached features; None computes them each time."""


def cached_features(
    backbone: nn.Module,
    sha256: str,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    settings: FeatureSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> Features:
    """The features of image files, from the cache if they were computed before.

    The key is a hash of the backbone's weights (`sha256`), the preprocessing, the precision, and
    the path, size and modification time of every file. `advance` counts images as they are done.
    """
    path = None
    if settings.cache is not None:
        key = _key(sha256, paths, preprocessing, settings)
        path = settings.cache / "features" / f"{key}.npz"
        cached = _read(path)
        if cached is not None:
            advance(len(paths))
            return cached
    features = pooled_features(backbone, paths, preprocessing, settings, advance)
    if path is not None:
        content = io.BytesIO()
        np.savez(
            content,
            values=features.values.numpy(),
            kept=features.kept,
            bad=json.dumps(features.bad),
        )
        write_whole(path, content.getvalue())
    return features


def pooled_features(
    backbone: nn.Module,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    settings: FeatureSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> Features:
    """The mean of the grid of each image, from a backbone in evaluation mode."""
    backbone.to(settings.device)
    bad: list[BadImage] = []
    values: list[Tensor] = []
    positions: list[Tensor] = []
    batches = validation_batches(
        _Crops(tuple(paths), preprocessing, settings.limits),
        _collate,
        batch_size=_BATCH,
        workers=settings.workers,
        pin_memory=settings.device.type == "cuda",
    )
    with evaluating(backbone):
        for batch, errors in batches:
            bad += errors
            advance(len(errors))
            if not batch:
                continue
            with settings.precision.autocast():
                grid = backbone(batch["image"].to(settings.device, non_blocking=True))
            values.append(grid.mean(dim=(2, 3)).float().cpu())
            positions.append(batch["position"])
            advance(len(grid))
    if not values:
        raise UserError(f"none of {len(paths)} images can be read; the first: {bad[0]}")
    return Features(torch.cat(values), torch.cat(positions).numpy(), tuple(map(str, bad)))


def data_hash(root: Path, paths: Sequence[Path], labels: npt.NDArray[Any]) -> str:
    """A hash of the images' paths below `root`, their sizes and labels: equal for equal copies."""
    digest = hashlib.sha256(np.ascontiguousarray(labels).data)
    for path in paths:
        size = path.stat().st_size if path.exists() else -1
        name = path.relative_to(root) if path.is_relative_to(root) else path
        digest.update(f"{name} {size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


class _Crops:
    """The images of the paths, resized and cropped, as the loader's examples."""

    def __init__(
        self, paths: tuple[Path, ...], preprocessing: Preprocessing, limits: ImageLimits
    ) -> None:
        self._paths, self._preprocessing, self._limits = paths, preprocessing, limits

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        return np.array([len(self)])

    def examples(self, keys: Sequence[Key]) -> tuple[list[dict[str, object]], list[BadImage]]:
        examples: list[dict[str, object]] = []
        bad: list[BadImage] = []
        for key in keys:
            try:
                image = self._preprocessing(self._paths[key.position], self._limits)
            except BadImage as error:
                bad.append(error)
            else:
                examples.append({"image": torch.from_numpy(image), "position": key.position})
        return examples, bad


def _collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    return {
        "image": torch.stack([example["image"] for example in examples]).permute(0, 3, 1, 2),
        "position": torch.tensor([example["position"] for example in examples]),
    }


def _key(
    sha256: str, paths: Sequence[Path], preprocessing: Preprocessing, settings: FeatureSettings
) -> str:
    dtype = settings.precision.dtype
    words = [_VERSION, sha256, preprocessing.resize, preprocessing.crop, dtype, settings.limits]
    digest = hashlib.sha256(repr(words).encode())
    for path in paths:
        try:
            found = path.stat()
            state = (found.st_size, found.st_mtime_ns)
        except OSError:
            state = (-1, -1)
        digest.update(f"{path.absolute()} {state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _read(path: Path) -> Features | None:
    """The features in a file; None if there is none, or if it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            bad = tuple(json.loads(str(file["bad"])))
            return Features(torch.from_numpy(file["values"]), file["kept"], bad)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None

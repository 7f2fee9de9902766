"""Pooled features of images from a frozen backbone."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from virtex.data.dataset import Key
from virtex.data.images import (
    DEFAULT_LIMITS,
    BadImage,
    ImageLimits,
    OnBadImage,
)
from virtex.data.loader import LoadedBatch, validation_batches
from virtex.distributed.world import ALONE, World
from virtex.errors import UserError, first_few
from virtex.evaluation.preprocessing import Preprocessing
from virtex.models.modes import evaluating
from virtex.training.precision import Precision

IMAGES_AT_ONCE = 64
"""The number of images in a batch."""


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


def pooled_features(
    backbone: nn.Module,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    settings: FeatureSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> Features:
    """The mean of the grid of each image, from a backbone in evaluation mode."""
    features = shared_features(backbone, paths, preprocessing, settings, advance, world=ALONE)
    assert features is not None
    return features


def shared_features(
    backbone: nn.Module,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    settings: FeatureSettings,
    advance: Callable[[int], None] = lambda _: None,
    *,
    world: World,
) -> Features | None:
    """As `pooled_features`, by all processes of `world`: the features on rank 0, None on others.

    Every process calls this with the same arguments. The batches are those of one process, and each
    process computes every `world.size`-th, so the number of processes changes no bit of the
    features where their devices and numbers of threads are equal. On rank 0, `advance` counts the
    images of all. Raises a `UserError` of one process on all.
    """
    share = None
    with world.shared_errors():
        share = _share_of(backbone, paths, preprocessing, settings, advance, world)
    assert share is not None, "shared_errors raises in place of a missing share"
    features = None
    shares = world.gather_on_main(share)
    with world.shared_errors():
        if world.main:
            features = _joined(shares)
    return features


@dataclass(frozen=True)
class _Share:
    """Features (n, C) of images at positions (n,), and the reason for each that cannot be read."""

    values: Tensor
    positions: npt.NDArray[np.int64]
    bad: dict[int, str]


def _share_of(
    backbone: nn.Module,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    settings: FeatureSettings,
    advance: Callable[[int], None],
    world: World,
) -> _Share:
    """The features of this process's batches."""
    backbone.to(settings.device)
    starts = range(world.rank * IMAGES_AT_ONCE, len(paths), world.size * IMAGES_AT_ONCE)
    own = np.array([row for start in starts for row in _batch_at(start, len(paths))], np.int64)
    values: list[Tensor] = []
    positions = [own[:0]]
    bad: dict[int, str] = {}
    batches = image_batches(
        [paths[row] for row in own],
        preprocessing,
        limits=settings.limits,
        batch_size=IMAGES_AT_ONCE,
        workers=settings.workers if len(own) else 0,
        pin_memory=settings.device.type == "cuda",
    )
    with evaluating(backbone):
        for start, (batch, errors) in zip(starts, batches, strict=True):
            kept = own[batch["position"].numpy()] if batch else own[:0]
            if batch:
                with settings.precision.autocast():
                    grid = backbone(batch["image"].to(settings.device, non_blocking=True))
                values.append(grid.mean(dim=(2, 3)).float().cpu())
                positions.append(kept)
            missing = np.setdiff1d(_batch_at(start, len(paths)), kept).tolist()
            bad |= dict(zip(missing, map(str, errors), strict=True))
            begin = start - world.rank * IMAGES_AT_ONCE
            advance(min(world.size * IMAGES_AT_ONCE, len(paths) - begin))
    return _Share(torch.cat(values) if values else torch.empty(0), np.concatenate(positions), bad)


def _batch_at(start: int, images: int) -> range:
    return range(start, min(start + IMAGES_AT_ONCE, images))


def _joined(shares: Sequence[_Share]) -> Features:
    """All features in the order of positions; raises `UserError` if there are none."""
    bad = dict(sorted(item for share in shares for item in share.bad.items()))
    found = [share for share in shares if len(share.positions)]
    if not found:
        raise UserError(
            f"none of {len(bad)} images can be read; the first: {next(iter(bad.values()))}"
        )
    values, kept = found[0].values, found[0].positions
    if len(found) > 1:
        kept = np.concatenate([share.positions for share in found])
        order = np.argsort(kept)
        values, kept = torch.cat([share.values for share in found])[order], kept[order]
    return Features(values, kept, tuple(bad.values()))


def image_batches(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    *,
    limits: ImageLimits,
    batch_size: int,
    workers: int,
    pin_memory: bool,
) -> Iterator[LoadedBatch]:
    """The images of files in order, each batch with the errors of those that cannot be read.

    A batch has `image` (B, C, H, W) uint8 and `position` (B,) int64 in `paths`, or is empty.
    """
    return validation_batches(
        _Crops(tuple(paths), preprocessing, limits),
        _collate,
        batch_size=batch_size,
        workers=workers,
        pin_memory=pin_memory,
    )


def check_images(paths: Sequence[Path], on_bad_image: OnBadImage) -> None:
    """Raise `UserError` for files that do not exist or are empty, unless bad images are skipped."""
    if on_bad_image == "skip":
        return
    missing = [path for path in paths if not path.is_file()]
    empty = [path for path in set(paths).difference(missing) if not path.stat().st_size]
    problems = [
        f"{len(found)} of {len(paths)} images {problem}: {first_few(sorted(found))}"
        for problem, found in (("do not exist", missing), ("are empty files", empty))
        if found
    ]
    if problems:
        raise UserError(f"{'; '.join(problems)}; add or remove them, or give --on-bad-image skip")


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
        self,
        paths: tuple[Path, ...],
        preprocessing: Preprocessing,
        limits: ImageLimits,
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

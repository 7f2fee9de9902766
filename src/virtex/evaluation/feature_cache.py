"""Features of images that are computed once and kept in a file of the cache."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from virtex.distributed.world import ALONE, World
from virtex.evaluation.features import Features, FeatureSettings, shared_features
from virtex.evaluation.preprocessing import Preprocessing
from virtex.files import write_whole

_VERSION = 2
"""Of the computation of features; part of the key."""


def cached_features(
    backbone: nn.Module,
    sha256: str,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    settings: FeatureSettings,
    advance: Callable[[int], None] = lambda _: None,
    *,
    world: World = ALONE,
) -> Features | None:
    """As `shared_features`, from the cache if they were computed before.

    The key is a hash of the backbone's weights (`sha256`), the preprocessing, the precision, and
    the path, size and modification time of every file. Rank 0 alone reads and writes the cache.
    """
    path = cached = None
    if settings.cache is not None and world.main:
        key = _key(sha256, paths, preprocessing, settings)
        path = settings.cache / "features" / f"{key}.npz"
        cached = _read(path)
    if world.any(cached is not None):
        advance(len(paths))
        return cached
    features = shared_features(backbone, paths, preprocessing, settings, advance, world=world)
    with world.shared_errors():
        if path is not None and features is not None:
            _write(path, features)
    return features


def _key(
    sha256: str, paths: Sequence[Path], preprocessing: Preprocessing, settings: FeatureSettings
) -> str:
    dtype = settings.precision.dtype
    words = [_VERSION, sha256, preprocessing, dtype, settings.limits]
    if preprocessing.pixels.record:
        words.append(preprocessing.pixels)
    digest = hashlib.sha256(repr(words).encode())
    for path in paths:
        try:
            found = path.stat()
            state = (found.st_size, found.st_mtime_ns)
        except OSError:
            state = (-1, -1)
        digest.update(f"{path.absolute()} {state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _write(path: Path, features: Features) -> None:
    content = io.BytesIO()
    np.savez(
        content,
        values=features.values.numpy(),
        kept=features.kept,
        bad=json.dumps(features.bad),
    )
    write_whole(path, content.getvalue())


def _read(path: Path) -> Features | None:
    """The features in a file; None if there is none, or if it is damaged."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            bad = tuple(json.loads(str(file["bad"])))
            return Features(torch.from_numpy(file["values"]), file["kept"], bad)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None

"""The features of any images, in a file with their paths."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from virtex.errors import UserError
from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.evaluate import preprocessing
from virtex.evaluation.feature_cache import cached_features
from virtex.evaluation.features import FeatureSettings
from virtex.files import write_whole

_PART = 4096
"""Images whose features are cached together, so that an interrupted command loses no more."""
FORMATS = (".npz", ".parquet")


@dataclass(frozen=True)
class Embedding:
    """Features (N, C) float32 of images, their paths, and a line for each that cannot be read.

    `description` are the checkpoint, the hash of its weights and the preprocessing.
    """

    paths: tuple[str, ...]
    values: Tensor
    bad: tuple[str, ...]
    description: dict[str, str]


def embed(
    backbone: EvaluatedBackbone,
    paths: Sequence[Path],
    settings: FeatureSettings,
    advance: Callable[[int], None] = lambda _: None,
) -> Embedding:
    """The features of images as `virtex evaluate knn` computes and caches them."""
    steps = preprocessing("knn", backbone)
    values: list[Tensor] = []
    kept: list[str] = []
    bad: list[str] = []
    for first in range(0, len(paths), _PART):
        part = paths[first : first + _PART]
        found = cached_features(backbone.module, backbone.sha256, part, steps, settings, advance)
        assert found is not None, "there is one process"
        values.append(found.values)
        kept += [str(part[position]) for position in found.kept.tolist()]
        bad += found.bad
    description = {
        "checkpoint": backbone.name,
        "sha256": backbone.sha256,
        "network": backbone.network,
        "preprocessing": str(steps.steps),
        "precision": settings.precision.name,
    }
    return Embedding(tuple(kept), torch.cat(values), tuple(bad), description)


def check_format(path: Path) -> None:
    """Raise `UserError` for a file of another format, or one whose package is missing."""
    if path.suffix not in FORMATS:
        raise UserError(f"--output {path}: the extension must be {' or '.join(FORMATS)}")
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"--output {path}: Parquet requires pyarrow: pip install"
                " 'virtex-pretraining[table]', or name a .npz file"
            ) from error


def write(path: Path, embedding: Embedding) -> None:
    """Write `path` (N,) and `features` (N, C) atomically.

    The description is `description` in an .npz file and the metadata of a Parquet file, as JSON.
    """
    content = io.BytesIO()
    description = json.dumps(embedding.description)
    values = embedding.values.numpy()
    if path.suffix == ".npz":
        names = np.array(embedding.paths, dtype=np.str_)
        np.savez(content, path=names, features=values, description=np.array(description))
    else:
        import pyarrow
        from pyarrow import parquet

        width = values.shape[1]
        features = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), width)
        table = pyarrow.table({"path": pyarrow.array(embedding.paths), "features": features})
        parquet.write_table(table.replace_schema_metadata({"virtex": description}), content)
    write_whole(path, content.getvalue())

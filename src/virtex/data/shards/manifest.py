"""`shards.json`: what a directory of shards holds, so that one file is read to open it.

One JSON object: `format`; `labels`, captions or categories; `categories`, their names, or null;
`ids`, "told" where the indexes' image ids are those of the images, "hashed" where an id is a hash
of the shard's name and the index's id, because these are not known to differ between shards;
`report`, lines for a person, and `left_out`, such lines on samples that cannot be used; and, with
an item a shard, `names`, `samples`, `tar_bytes`, `tar_sha256`, `index_bytes` and `index_sha256`.
Where the shards were read to make it, `tar_versions` are what tells that they were replaced since:
size and time of writing, or the ETag.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from virtex.data.shards.store import Store
from virtex.data.shards.tar_index import SUFFIX, TarIndex
from virtex.data.shared_strings import PackedStrings, StringPacker
from virtex.errors import UserError, first_few

MANIFEST = "shards.json"
FORMAT = "virtex shards 1"
_NAME = re.compile(r"[^./\\\0][^/\\\0]*\.tar")
_LISTS = ("names", "samples", "tar_bytes", "tar_sha256", "index_bytes", "index_sha256")
_NUMBERS = ("samples", "tar_bytes", "index_bytes")
Labels = Literal["captions", "categories"]


@dataclass(frozen=True)
class ShardSummary:
    """One shard in a manifest."""

    name: str
    samples: int
    tar_bytes: int
    tar_sha256: str
    index_bytes: int
    index_sha256: str


@dataclass(frozen=True)
class ShardManifest:
    """The shards of one split, in order, column by column."""

    labels: Labels
    categories: tuple[str, ...] | None
    hashed_ids: bool
    report: tuple[str, ...]
    left_out: tuple[str, ...]
    names: PackedStrings
    samples: npt.NDArray[np.int64]
    tar_bytes: npt.NDArray[np.int64]
    tar_sha256: npt.NDArray[np.uint8]  # (S, 32)
    index_bytes: npt.NDArray[np.int64]
    index_sha256: npt.NDArray[np.uint8]  # (S, 32)
    fingerprint: str
    tar_versions: tuple[str, ...] | None = None  # what the store gave when the shards were indexed


def index_name(shard: str) -> str:
    """The name of a shard's index."""
    return shard.removesuffix(".tar") + SUFFIX


def written_manifest(
    shards: Sequence[ShardSummary],
    *,
    labels: Labels,
    categories: Sequence[str] | None = None,
    hashed_ids: bool = False,
    report: Sequence[str] = (),
    left_out: Sequence[str] = (),
    tar_versions: Sequence[str] | None = None,
) -> bytes:
    """The content of `shards.json`; equal for equal shards."""
    content: dict[str, object] = {
        "format": FORMAT,
        "labels": labels,
        "categories": categories,
        "ids": "hashed" if hashed_ids else "told",
        "report": report,
        "left_out": left_out,
        "names": [shard.name for shard in shards],
        "samples": [shard.samples for shard in shards],
        "tar_bytes": [shard.tar_bytes for shard in shards],
        "tar_sha256": [shard.tar_sha256 for shard in shards],
        "index_bytes": [shard.index_bytes for shard in shards],
        "index_sha256": [shard.index_sha256 for shard in shards],
    }
    if tar_versions is not None:
        content["tar_versions"] = tar_versions
    return (json.dumps(content) + "\n").encode()


def read_manifest(content: bytes, address: str) -> ShardManifest:
    """The manifest in a file's bytes; raises UserError, with its `address`, where it is none."""
    try:
        values = json.loads(content)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"expected 'format': {FORMAT!r}")
        return _manifest(values)
    except (ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise UserError(
            f"{address} does not describe shards: {error}; take it from its source again, or"
            " remove it to have it made from the shards"
        ) from error


def _manifest(values: Mapping[str, Any]) -> ShardManifest:
    lengths = {len(values[name]) for name in _LISTS}
    if len(lengths) != 1:
        raise ValueError(f"{', '.join(_LISTS)} differ in length")
    names = StringPacker()
    for name in values["names"]:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{str(name)[:100]!r} is no name of a tar file")
        names.append(name)
    if len(set(values["names"])) < len(values["names"]):
        raise ValueError("a shard is named twice")
    samples, tar_bytes, index_bytes = (_numbers(values[name]) for name in _NUMBERS)
    if not samples.sum():
        raise ValueError("expected at least one sample")
    categories = values["categories"]
    if values["labels"] not in ("captions", "categories"):
        raise ValueError(f"'labels' is {values['labels']!r}; expected captions or categories")
    return ShardManifest(
        labels=values["labels"],
        categories=None if categories is None else tuple(map(str, categories)),
        hashed_ids={"told": False, "hashed": True}[values["ids"]],
        report=tuple(map(str, values["report"])),
        left_out=tuple(map(str, values["left_out"])),
        names=names.packed(),
        samples=samples,
        tar_bytes=tar_bytes,
        tar_sha256=_digests(values["tar_sha256"]),
        index_bytes=index_bytes,
        index_sha256=_digests(values["index_sha256"]),
        fingerprint=_fingerprint(values),
        tar_versions=_versions(values),
    )


def _versions(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    versions = values.get("tar_versions")
    if versions is None:
        return None
    if len(versions) != len(values["names"]):
        raise ValueError("names and tar_versions differ in length")
    return tuple(map(str, versions))


def _numbers(values: Sequence[int]) -> npt.NDArray[np.int64]:
    numbers = np.array(values, np.int64)
    if np.any(numbers < 0):
        raise ValueError("expected numbers of 0 or more")
    return numbers


def _digests(values: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(S, 32)"""
    return np.frombuffer(bytes.fromhex("".join(values)), np.uint8).reshape(len(values), 32)


def _fingerprint(values: Mapping[str, Any]) -> str:
    # An index holds the checksums of all that is in its shard.
    keys = ("labels", "categories", "ids", "names", "samples", "index_sha256")
    content = json.dumps([values[key] for key in keys])
    return hashlib.sha256(content.encode()).hexdigest()


def summary(name: str, index: TarIndex) -> ShardSummary:
    """What a manifest says of a shard."""
    content = index.to_bytes()
    return ShardSummary(
        name=name,
        samples=len(index.rows),
        tar_bytes=index.tar_bytes,
        tar_sha256=index.tar_sha256,
        index_bytes=len(content),
        index_sha256=hashlib.sha256(content).hexdigest(),
    )


def check_shards(store: Store, manifest: ShardManifest) -> None:
    """Raise UserError unless the shards of the manifest are there with their sizes, and no others.

    Lists the directory once and reads nothing. Over HTTP, where nothing can be listed, a shard is
    looked for when it is needed.
    """
    sizes = store.sizes()
    if sizes is None:
        return
    there = {name: sizes[name] for name in sizes if name.endswith(".tar") and name[0] != "."}
    names = [manifest.names[index] for index in range(len(manifest.names))]
    missing = [name for name in names if name not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} shards of {store.root} are missing:"
            f" {first_few(missing)}; copy them again, or check DATA.ROOT"
        )
    changed = [
        f"{name} has {there[name]} bytes instead of {told}"
        for name, told in zip(names, manifest.tar_bytes.tolist(), strict=True)
        if there[name] != told
    ]
    if changed:
        raise UserError(
            f"{len(changed)} shards of {store.root} are not those of its {MANIFEST}:"
            f" {first_few(changed)}; copy them again"
        )
    more = sorted(there.keys() - set(names))
    if more:
        raise UserError(
            f"{len(more)} shards of {store.root} are not in its {MANIFEST}: {first_few(more)}; move"
            f" them away, or remove {MANIFEST} to have it made anew"
        )

"""`shards.json`: what a directory of shards holds, so that one file is read to open it.

One JSON object: `format`; `labels`, captions or categories; `categories`, their names, or null;
`ids`, "told" if the image ids are those in the indexes, "hashed" if an id is a hash of the shard's
name and the id in the index, because these may not differ between shards; `report`, lines for a
person, and `left_out`, such lines on samples that cannot be used; and, with an item a shard,
`names`, `samples`, `tar_bytes`, `tar_sha256`, `index_bytes` and `index_sha256`. If the shards were
read to make it, `tar_versions` (size and time of writing, or the ETag) show later whether they were
replaced.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import FailFast, Field, model_validator

from virtex.data.json_files import Count, JsonFile, parse_json
from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames
from virtex.data.shards.store import Store
from virtex.data.shards.tar_index import SUFFIX, Labels, TarIndex
from virtex.data.shared_strings import PackedStrings, StringPacker
from virtex.errors import UserError, first_few

MANIFEST = "shards.json"
FORMAT = "virtex shards 1"
_TarName = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*\.tar$")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _ManifestFile(JsonFile):
    """The content of `shards.json`."""

    format: Literal["virtex shards 1"]
    labels: Labels
    categories: tuple[str, ...] | None
    ids: Literal["told", "hashed"]
    report: tuple[str, ...]
    excluded: Annotated[tuple[str, ...], Field(alias="left_out")]
    names: Annotated[list[_TarName], FailFast()]
    samples: Annotated[list[Count], FailFast()]
    tar_bytes: Annotated[list[Count], FailFast()]
    tar_sha256: Annotated[list[_Sha256], FailFast()]
    index_bytes: Annotated[list[Count], FailFast()]
    index_sha256: Annotated[list[_Sha256], FailFast()]
    tar_versions: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        columns = (self.samples, self.tar_bytes, self.tar_sha256, self.index_bytes)
        shards = len(self.names)
        if any(len(column) != shards for column in (*columns, self.index_sha256)):
            raise ValueError("the lists with an item a shard differ in length")
        if self.tar_versions is not None and len(self.tar_versions) != shards:
            raise ValueError("names and tar_versions differ in length")
        if len(set(self.names)) < shards:
            raise ValueError("a shard is named twice")
        if not any(self.samples):
            raise ValueError("expected at least one sample")
        return self


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
    excluded: tuple[str, ...]
    names: PackedStrings
    samples: npt.NDArray[np.int64]
    tar_bytes: npt.NDArray[np.int64]
    tar_sha256: npt.NDArray[np.uint8]  # (S, 32)
    index_bytes: npt.NDArray[np.int64]
    index_sha256: npt.NDArray[np.uint8]  # (S, 32)
    fingerprint: str
    tar_versions: tuple[str, ...] | None = None  # the store's, when the shards were indexed
    variant: str = ""  # of the format of the texts
    split: str = ""  # that the names of the shards have in them

    @property
    def name(self) -> str:
        """The name of the manifest's file."""
        return manifest_name(self.split, self.variant)

    def index_name(self, shard: str) -> str:
        """The name of a shard's index."""
        return index_name(shard, self.variant)


def index_name(shard: str, variant: str = "") -> str:
    """The name of a shard's index; texts in a `variant` of the format have indexes of their own."""
    return shard.removesuffix(".tar") + (f".{variant}" if variant else "") + SUFFIX


def manifest_name(split: str = "", variant: str = "") -> str:
    """The name of the manifest of the shards of a split, for a variant of the format."""
    return ".".join(part for part in ("shards", split, variant, "json") if part)


def manifest_json(
    shards: Sequence[ShardSummary],
    *,
    labels: Labels,
    categories: Sequence[str] | None = None,
    hashed_ids: bool = False,
    report: Sequence[str] = (),
    excluded: Sequence[str] = (),
    tar_versions: Sequence[str] | None = None,
) -> bytes:
    """The content of `shards.json`; equal for equal shards."""
    content: dict[str, object] = {
        "format": FORMAT,
        "labels": labels,
        "categories": categories,
        "ids": "hashed" if hashed_ids else "told",
        "report": report,
        "left_out": excluded,
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


def read_manifest(
    content: bytes, address: str, *, split: str = "", variant: str = ""
) -> ShardManifest:
    """The manifest in a file's bytes; raises UserError, with its `address`, if it is not valid."""
    remedy = "take it from its source again, or remove it to have it made from the shards"
    file = parse_json(_ManifestFile, content, f"{address} does not describe shards", remedy)
    names = StringPacker()
    for name in file.names:
        names.append(name)
    return ShardManifest(
        labels=file.labels,
        categories=file.categories,
        hashed_ids=file.ids == "hashed",
        report=file.report,
        excluded=file.excluded,
        names=names.packed(),
        samples=np.array(file.samples, np.int64),
        tar_bytes=np.array(file.tar_bytes, np.int64),
        tar_sha256=_digests(file.tar_sha256),
        index_bytes=np.array(file.index_bytes, np.int64),
        index_sha256=_digests(file.index_sha256),
        fingerprint=_fingerprint(file),
        tar_versions=file.tar_versions,
        variant=variant,
        split=split,
    )


def _digests(values: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Hexadecimal digits to bytes, (S, 32)."""
    return np.frombuffer(bytes.fromhex("".join(values)), np.uint8).reshape(len(values), 32)


def _fingerprint(file: _ManifestFile) -> str:
    # An index holds the checksums of everything in its shard.
    content = [file.labels, file.categories, file.ids, file.names, file.samples, file.index_sha256]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def summarize_shard(name: str, index: TarIndex) -> ShardSummary:
    """The entry of a shard in a manifest."""
    content = index.to_bytes()
    return ShardSummary(
        name=name,
        samples=len(index.rows),
        tar_bytes=index.tar_bytes,
        tar_sha256=index.tar_sha256,
        index_bytes=len(content),
        index_sha256=hashlib.sha256(content).hexdigest(),
    )


def check_shards(store: Store, manifest: ShardManifest, names: ShardNames = ALL_SHARDS) -> None:
    """Raise UserError unless the store has exactly the shards of the manifest, by name and size.

    Lists the directory once and reads nothing. Over HTTP, which cannot list, nothing is checked.
    """
    files = store.list_files()
    if files is None:
        return
    found = {name: files[name].size for name in names.of(files)}
    listed = list(manifest.names)
    if missing := [name for name in listed if name not in found]:
        raise UserError(
            f"{len(missing)} of the {len(listed)} shards of {store.root} are missing:"
            f" {first_few(missing)}; copy them again, or check DATA.ROOT"
        )
    changed = [
        f"{name} has {found[name]} bytes instead of {expected}"
        for name, expected in zip(listed, manifest.tar_bytes.tolist(), strict=True)
        if found[name] != expected
    ]
    if changed:
        raise UserError(
            f"{len(changed)} shards of {store.root} differ from its {manifest.name}:"
            f" {first_few(changed)}; copy them again"
        )
    if unknown := sorted(found.keys() - set(listed)):
        raise UserError(
            f"{len(unknown)} shards of {store.root} are not in its {manifest.name}:"
            f" {first_few(unknown)}; move them away, or remove {manifest.name} to have it made"
            " again"
        )

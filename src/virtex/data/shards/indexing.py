"""Shards without an index: they are read once, and their indexes are kept."""

import hashlib
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from virtex.data.shards.manifest import (
    ShardManifest,
    index_name,
    manifest_json,
    manifest_name,
    read_manifest,
    summarize_shard,
)
from virtex.data.shards.sample_text import DEFAULT_FORMAT, TextFormat
from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames
from virtex.data.shards.store import FileVersion, LocalStore, MemoryStore, Store
from virtex.data.shards.tar_index import IMAGES, Labels, TarIndex, index_tar, read_index
from virtex.errors import RunError, UserError, first_few

_MAX_MANIFEST_BYTES = 256 << 20  # of a million shards
_MAX_REPORTED, _MAX_IN_ERROR = 20, 6

OnIndexed = Callable[[str, int, int], None]
"""Called while a shard is indexed, with its name, the bytes read of all shards, and their total."""


def ignore_progress(name: str, done: int, total: int) -> None:
    """Do nothing; an `OnIndexed`."""


@dataclass(frozen=True)
class Indexing:
    """The shards of a directory that belong together, and how they are read.

    `cache_dir` takes their indexes if the directory is read-only, or not to be `touched`.
    """

    store: Store
    cache_dir: Path
    names: ShardNames = ALL_SHARDS
    form: TextFormat = DEFAULT_FORMAT
    touched: bool = True

    @property
    def cache(self) -> LocalStore:
        """The place in `cache_dir` for the indexes of this directory."""
        digest = hashlib.sha256(self.store.root.encode()).hexdigest()[:32]
        return LocalStore(str(self.cache_dir / "indexes" / digest))

    @property
    def manifest_name(self) -> str:
        return manifest_name(self.names.split or "", self.form.variant)

    def index_name(self, shard: str) -> str:
        return index_name(shard, self.form.variant)

    def manifest(self, content: bytes, home: Store) -> ShardManifest:
        """The manifest in the bytes of its file in `home`; raises UserError."""
        address = f"{home.root}/{self.manifest_name}"
        split, variant = self.names.split or "", self.form.variant
        return read_manifest(content, address, split=split, variant=variant)

    def make(self, name: str, home: Store, on_bytes: Callable[[int], None]) -> bool:
        """Read a shard and write its index to `home`; False if that is read-only."""
        content = index_tar(self.store, name, self.form, on_bytes).to_bytes()
        return home.write(self.index_name(name), content)

    def existing(self, name: str, home: Store) -> bytes | None:
        """The index of a shard from an earlier time, if there is one and it fits the tar file."""
        address = f"{home.root}/{self.index_name(name)}"
        try:
            content = home.read(self.index_name(name))
            index = read_index(content, address)
        except UserError:
            return None
        fits = index.tar_bytes == self.store.size(name) and _fits(self.store, name, index)
        return content if fits else None


def has_shards(indexing: Indexing) -> bool:
    """Whether the directory exists and has shards of these names.

    Over HTTP, which cannot list, whether it has a manifest of them.
    """
    store = indexing.store
    try:
        files = store.list_files()
        if files is not None:
            return bool(indexing.names.of(files))
        return store.size(indexing.manifest_name) > 0
    except RunError:
        raise
    except UserError:
        return False


def manifest_and_home(
    indexing: Indexing, on_indexed: OnIndexed = ignore_progress
) -> tuple[ShardManifest, Store]:
    """The manifest of a directory of shards, and the store of its indexes.

    Without a `shards.json`, every shard is read to make it, with an index each: beside the shards
    if they can be written there, else in the cache, else in memory. Shards that were replaced
    since they were indexed in this way are read again. Several processes may do this at once.
    Raises UserError if there are no shards, or one is malformed.
    """
    found = find_manifest(indexing, on_indexed)
    if not isinstance(found, IndexingWork):
        return found
    # Each process in an order of its own, so that those of one job share the work.
    own = os.getpid()
    for name in sorted(found.names, key=lambda name: zlib.crc32(f"{own} {name}".encode())):
        found.index(name)
    return found.finish()


def find_manifest(
    indexing: Indexing, on_indexed: OnIndexed
) -> "tuple[ShardManifest, Store] | IndexingWork":
    """The manifest of a directory and the store of its indexes, or the work that makes them.

    The first shard is indexed already, to find the store. Raises UserError as `manifest_and_home`.
    """
    store = indexing.store
    replaced: set[str] = set()
    for home in (store, indexing.cache):
        if (content := _read_or_none(home, indexing.manifest_name)) is not None:
            manifest = indexing.manifest(content, home)
            changed = _replaced_shards(manifest, store)
            if not changed:
                return manifest, home
            replaced |= changed
    files = store.list_files()
    if files is None:
        raise UserError(
            f"{store.root} cannot be listed, as HTTP has no directories; name its files in a"
            " manifest"
        )
    names = indexing.names.of(files)
    if not names:
        raise UserError(indexing.names.none_found(store.root, files))
    return IndexingWork(indexing, {name: files[name] for name in names}, replaced, on_indexed)


class IndexingWork:
    """The indexing of a directory in steps, which several processes may share."""

    def __init__(
        self,
        indexing: Indexing,
        files: dict[str, FileVersion],
        replaced: set[str],
        on_indexed: OnIndexed,
    ) -> None:
        """`files` are the shards by name, in order; an earlier index of `replaced` is not used."""
        self.indexing = indexing
        self._files, self._replaced = files, replaced
        self._on_indexed, self._done = on_indexed, 0
        self._total = sum(file.size for file in files.values())
        self.home = self._first_home(next(iter(files)))

    @property
    def names(self) -> list[str]:
        """The shards that remain to be indexed, or to be found indexed."""
        return list(self._files)[1:]

    def index(self, name: str) -> None:
        """Index a shard, unless it has an index that fits."""
        before = self._done
        if not self.is_indexed(name):
            self.indexing.make(name, self.home, lambda length: self._advance(name, length))
        self._done = before
        self.count(name)

    def is_indexed(self, name: str) -> bool:
        """Whether a shard has an index that fits, from an earlier time."""
        return name not in self._replaced and self.indexing.existing(name, self.home) is not None

    def count(self, name: str) -> None:
        """Count a whole shard as done."""
        self._advance(name, self._files[name].size)

    def _advance(self, name: str, length: int) -> None:
        self._done += length
        self._on_indexed(name, self._done, self._total)

    def finish(self) -> tuple[ShardManifest, Store]:
        """Write and read the manifest of all shards, which have been indexed."""
        indexing, home = self.indexing, self.home
        home.write(indexing.manifest_name, _manifest(indexing, self._versions(), home))
        manifest = indexing.manifest(home.read(indexing.manifest_name), home)
        if self._replaced:
            what = "shards were replaced since they were indexed, and were read again"
            report = f"{len(self._replaced)} {what} ({first_few(sorted(self._replaced))})"
            manifest = replace(manifest, report=(report, *manifest.report))
        return manifest, home

    def _versions(self) -> dict[str, str]:
        return {name: file.version for name, file in self._files.items()}

    def _first_home(self, name: str) -> Store:
        """Write the index of the first shard; returns the first store that accepts it."""
        indexing = self.indexing
        content = None if name in self._replaced else indexing.existing(name, indexing.store)
        if content is None:
            content = index_tar(
                indexing.store, name, indexing.form, lambda length: self._advance(name, length)
            ).to_bytes()
        self._done = 0
        self.count(name)
        memory = MemoryStore(f"(indexes of {indexing.store.root})")
        homes = (*([indexing.store] if indexing.touched else []), indexing.cache, memory)
        return next(home for home in homes if home.write(indexing.index_name(name), content))


def _replaced_shards(manifest: ShardManifest, store: Store) -> set[str]:
    """The shards that were replaced since they were indexed, as far as the store can tell."""
    if manifest.tar_versions is None or (files := store.list_files()) is None:
        return set()
    return {
        name
        for name, version in zip(manifest.names, manifest.tar_versions, strict=True)
        if name in files and files[name].version != version
    }


def _read_or_none(home: Store, name: str) -> bytes | None:
    """A file, or None if there is none; by its name, as not every store can be listed."""
    try:
        size = home.size(name)
        if size <= _MAX_MANIFEST_BYTES:
            return home.read(name)
    except RunError:
        raise
    except UserError:
        return None
    raise UserError(
        f"{home.root}/{name} has {size:,} bytes, and the description of shards may have"
        f" {_MAX_MANIFEST_BYTES:,}; remove it to have it made again, or make larger shards"
    )


def _fits(store: Store, name: str, index: TarIndex) -> bool:
    """Whether a few texts, the first and the last among them, have the indexed checksums."""
    rows = index.rows[:: max(1, len(index.rows) // 4)].tolist() + index.rows[-1:].tolist()
    return bool(rows) and all(
        zlib.crc32(store.read(name, offset, size)) == crc32 for *_, offset, size, crc32, _ in rows
    )


def _manifest(indexing: Indexing, versions: dict[str, str], home: Store) -> bytes:
    summaries, ranges, excluded, report = [], [], [], []
    sources, labels = set(), set()
    for name in versions:
        file = indexing.index_name(name)
        index = read_index(home.read(file), f"{home.root}/{file}")
        summaries.append(summarize_shard(name, index))
        excluded += [f"{name}: {line}" for line in index.excluded]
        report += [f"{name}: {line}" for line in index.report]
        if len(index.rows):
            image_ids = index.rows["image_id"]
            ranges.append((int(image_ids.min()), int(image_ids.max())))
            sources.add(index.ids)
            labels.add(index.labels)
    if not ranges:
        found = "; ".join(excluded[:_MAX_IN_ERROR]) or "their tar files are empty"
        key = indexing.form.caption_key
        texts = (
            "KEY.txt with a caption a line, or KEY.json with 'caption' or 'captions'"
            if key is None
            else f"KEY.json with {key!r}, which is DATA.COLUMNS.CAPTION"
        )
        raise UserError(
            f"the shards of {indexing.store.root} hold no image with a caption: {found}. Expected"
            " are two files of one key: an image (KEY.jpg, or another extension of"
            f" {', '.join(sorted(IMAGES))}), and {texts}; rename the files, set"
            " DATA.COLUMNS.CAPTION to another key of the JSON, or make the shards again"
        )
    disjoint = all(one[1] < other[0] for one, other in pairwise(sorted(ranges)))
    unique_ids = disjoint and len(sources) == 1 and sources != {"names"}
    common: Labels = "categories" if labels == {"categories"} else "captions"
    return manifest_json(
        summaries,
        labels=common,
        hashed_ids=not unique_ids,
        report=_shortened(report),
        excluded=_shortened(excluded),
        tar_versions=list(versions.values()),
    )


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= _MAX_REPORTED:
        return lines
    return [*lines[:_MAX_REPORTED], f"and so on, {len(lines) - _MAX_REPORTED} lines more"]

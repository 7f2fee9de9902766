"""Shards without an index: they are read once, and their indexes are kept."""

import hashlib
import os
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from virtex.data.shards.manifest import (
    MANIFEST,
    ShardManifest,
    index_name,
    is_shard,
    manifest_json,
    read_manifest,
    summarize_shard,
)
from virtex.data.shards.store import LocalStore, MemoryStore, Store
from virtex.data.shards.tar_index import IMAGES, Labels, TarIndex, index_tar, read_index
from virtex.errors import RunError, UserError, first_few

_MAX_REPORTED, _MAX_IN_ERROR = 20, 6


def manifest_and_home(store: Store, cache_dir: Path) -> tuple[ShardManifest, Store]:
    """The manifest of a directory of shards, and the store of its indexes.

    Without a `shards.json`, every shard is read to make it, with an index each: beside the shards
    if they can be written there, else in `cache_dir`, else in memory. Shards that were replaced
    since they were indexed in this way are read again. Several processes may do this at once.
    Raises UserError if there are no shards, or one is malformed.
    """
    cached = LocalStore(
        str(cache_dir / "indexes" / hashlib.sha256(store.root.encode()).hexdigest()[:32])
    )
    replaced: set[str] = set()
    for home in (store, cached):
        if (content := _read_or_none(home, MANIFEST)) is not None:
            manifest = read_manifest(content, f"{home.root}/{MANIFEST}")
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
    names = sorted(name for name in files if is_shard(name))
    if not names:
        raise UserError(
            f"there are no shards in {store.root}: DATA.ROOT must hold train/ and val/ with tar"
            " files, as `virtex pack` writes them"
        )
    home = _index_first(store, names[0], cached, replaced)
    # Each process in an order of its own, so that those of one job share the work.
    own = os.getpid()
    for name in sorted(names[1:], key=lambda name: zlib.crc32(f"{own} {name}".encode())):
        if name in replaced or _existing_index(store, name, home) is None:
            home.write(index_name(name), index_tar(store, name).to_bytes())
    home.write(MANIFEST, _manifest({name: files[name].version for name in names}, store, home))
    manifest = read_manifest(home.read(MANIFEST), f"{home.root}/{MANIFEST}")
    if replaced:
        what = "shards were replaced since they were indexed, and were read again"
        report = f"{len(replaced)} {what} ({first_few(sorted(replaced))})"
        manifest = replace(manifest, report=(report, *manifest.report))
    return manifest, home


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
        return home.read(name)
    except RunError:
        raise
    except UserError:
        return None


def _index_first(store: Store, name: str, cache: LocalStore, replaced: set[str]) -> Store:
    """Write the index of the first shard; returns the first store that accepts it."""
    content = None if name in replaced else _existing_index(store, name, store)
    content = content or index_tar(store, name).to_bytes()
    memory = MemoryStore(f"(indexes of {store.root})")
    return next(home for home in (store, cache, memory) if home.write(index_name(name), content))


def _existing_index(store: Store, name: str, home: Store) -> bytes | None:
    """The index of a shard from an earlier time, if there is one and it fits the tar file."""
    try:
        content = home.read(index_name(name))
        index = read_index(content, f"{home.root}/{index_name(name)}")
    except UserError:
        return None
    return content if index.tar_bytes == store.size(name) and _fits(store, name, index) else None


def _fits(store: Store, name: str, index: TarIndex) -> bool:
    """Whether a few texts, the first and the last among them, have the indexed checksums."""
    rows = index.rows[:: max(1, len(index.rows) // 4)].tolist() + index.rows[-1:].tolist()
    return bool(rows) and all(
        zlib.crc32(store.read(name, offset, size)) == crc32 for *_, offset, size, crc32, _ in rows
    )


def _manifest(versions: dict[str, str], store: Store, home: Store) -> bytes:
    summaries, ranges, excluded, report = [], [], [], []
    sources, labels = set(), set()
    for name in versions:
        index = read_index(home.read(index_name(name)), f"{home.root}/{index_name(name)}")
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
        raise UserError(
            f"the shards of {store.root} hold no image with a caption: {found}. Expected are two"
            " files of one key: an image (KEY.jpg, or another extension of"
            f" {', '.join(sorted(IMAGES))}), and KEY.txt with a caption a line, or KEY.json with"
            " 'caption' or 'captions'; rename the files, or make the shards again"
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

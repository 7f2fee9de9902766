"""Shards that came without an index: read once, and their indexes kept for the next time."""

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
    manifest_json,
    read_manifest,
    summary,
)
from virtex.data.shards.store import LocalStore, MemoryStore, Store
from virtex.data.shards.tar_index import IMAGES, Labels, TarIndex, index_tar, read_index
from virtex.errors import RunError, UserError, first_few

_REPORTED, _SHOWN = 20, 6


def manifest_and_home(store: Store, cache_dir: Path) -> tuple[ShardManifest, Store]:
    """What a directory of shards holds, and where its indexes are.

    Where there is no `shards.json`, every shard is read to make it, with an index each: beside the
    shards if they can be written there, else in `cache_dir`, else in memory. Of shards that were
    indexed so, those that were replaced since are read again. Several processes may do that at
    once. Raises UserError where there are no shards, or one is malformed.
    """
    cached = LocalStore(
        str(cache_dir / "indexes" / hashlib.sha256(store.root.encode()).hexdigest()[:32])
    )
    replaced: set[str] = set()
    for home in (store, cached):
        if (content := _manifest_of(home)) is not None:
            manifest = read_manifest(content, f"{home.root}/{MANIFEST}")
            others = _replaced(manifest, store)
            if not others:
                return manifest, home
            replaced |= others
    names = [name for name in store.names() if name.endswith(".tar") and not name.startswith(".")]
    if not names:
        raise UserError(
            f"there are no shards in {store.root}: DATA.ROOT must hold train/ and val/ with tar"
            " files, as `virtex pack` writes them"
        )
    home = _home(store, names[0], cached, replaced)
    _make_indexes(store, names, home, replaced)
    home.write(MANIFEST, _manifest(names, store, home))
    manifest = read_manifest(home.read(MANIFEST), f"{home.root}/{MANIFEST}")
    if replaced:
        what = "shards were replaced since they were indexed, and were read again"
        report = f"{len(replaced)} {what} ({first_few(sorted(replaced))})"
        manifest = replace(manifest, report=(report, *manifest.report))
    return manifest, home


def _replaced(manifest: ShardManifest, store: Store) -> set[str]:
    """The shards that are others than those that were indexed, as far as the store can tell."""
    if manifest.tar_versions is None or (versions := store.versions()) is None:
        return set()
    names = (manifest.names[index] for index in range(len(manifest.names)))
    return {
        name
        for name, version in zip(names, manifest.tar_versions, strict=True)
        if versions.get(name, version) != version
    }


def _manifest_of(home: Store) -> bytes | None:
    # Asked for by its name: not every store can be listed.
    try:
        return home.read(MANIFEST)
    except RunError:
        raise
    except UserError:
        return None


def _home(store: Store, first: str, cache: LocalStore, replaced: set[str]) -> Store:
    """The first place that takes the index of the `first` shard."""
    content = None if first in replaced else _existing(store, first, store)
    content = content or index_tar(store, first).to_bytes()
    memory = MemoryStore(f"(indexes of {store.root})")
    return next(home for home in (store, cache, memory) if home.write(index_name(first), content))


def _make_indexes(store: Store, names: list[str], home: Store, replaced: set[str]) -> None:
    # Each process in an order of its own, so that those of one job share the work.
    own = os.getpid()
    for name in sorted(names, key=lambda name: zlib.crc32(f"{own} {name}".encode())):
        if name == names[0]:  # written by `_home`
            continue
        if name in replaced or _existing(store, name, home) is None:
            home.write(index_name(name), index_tar(store, name).to_bytes())


def _existing(store: Store, name: str, home: Store) -> bytes | None:
    """The index of a shard from an earlier time, if it is there and of this tar file."""
    try:
        content = home.read(index_name(name))
        index = read_index(content, f"{home.root}/{index_name(name)}")
    except UserError:
        return None
    return content if index.tar_bytes == store.size(name) and _fits(store, name, index) else None


def _fits(store: Store, name: str, index: TarIndex) -> bool:
    """Whether a few texts, the first and the last among them, are those that were indexed."""
    rows = index.rows[:: max(1, len(index.rows) // 4)].tolist() + index.rows[-1:].tolist()
    return bool(rows) and all(
        zlib.crc32(store.read(name, offset, size)) == crc32 for *_, offset, size, crc32, _ in rows
    )


def _manifest(names: list[str], store: Store, home: Store) -> bytes:
    summaries, ranges, left_out, report = [], [], [], []
    sources, labels = set(), set()
    for name in names:
        index = read_index(home.read(index_name(name)), f"{home.root}/{index_name(name)}")
        summaries.append(summary(name, index))
        left_out += [f"{name}: {line}" for line in index.left_out]
        report += [f"{name}: {line}" for line in index.report]
        if len(index.rows):
            ranges.append(_range(index))
            sources.add(index.ids)
            labels.add(index.labels)
    if not summaries or not ranges:
        seen = "; ".join(left_out[:_SHOWN]) or "their tar files are empty"
        raise UserError(
            f"the shards of {store.root} hold no image with a caption: {seen}. Expected are two"
            " files of one key: an image (KEY.jpg, or another extension of"
            f" {', '.join(sorted(IMAGES))}), and KEY.txt with a caption a line, or KEY.json with"
            " 'caption' or 'captions'; rename the files, or make the shards again"
        )
    ranges.sort()
    apart = all(one[1] < other[0] for one, other in pairwise(ranges))
    both: Labels = "categories" if labels == {"categories"} else "captions"
    from_text = apart and len(sources) == 1 and sources != {"names"}
    versions = store.versions()
    return manifest_json(
        summaries,
        labels=both,
        hashed_ids=not from_text,
        report=_some(report),
        left_out=_some(left_out),
        tar_versions=None if versions is None else [versions.get(name, "") for name in names],
    )


def _some(lines: list[str]) -> list[str]:
    if len(lines) <= _REPORTED:
        return lines
    return [*lines[:_REPORTED], f"and so on, {len(lines) - _REPORTED} lines more"]


def _range(index: TarIndex) -> tuple[int, int]:
    image_ids = index.rows["image_id"]
    return int(image_ids.min()), int(image_ids.max())

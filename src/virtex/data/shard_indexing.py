"""Shards that came without an index: read once, and their indexes kept for the next time."""

import hashlib
import os
import zlib
from itertools import pairwise
from pathlib import Path

from virtex.data.shard_manifest import (
    MANIFEST,
    Labels,
    ShardManifest,
    index_name,
    read_manifest,
    summary,
    written_manifest,
)
from virtex.data.store import LocalStore, MemoryStore, Store
from virtex.data.tar_index import TarIndex, index_tar, read_index
from virtex.errors import RunError, UserError

_REPORTED = 20


def manifest_and_home(store: Store, cache_dir: Path) -> tuple[ShardManifest, Store]:
    """What a directory of shards holds, and where its indexes are.

    Where there is no `shards.json`, every shard is read to make it, with an index each: beside the
    shards if they can be written there, else in `cache_dir`, else in memory. Several processes may
    do that at once. Raises UserError where there are no shards, or one is malformed.
    """
    cached = cache_dir / "indexes" / hashlib.sha256(store.root.encode()).hexdigest()[:32]
    homes: list[Store] = [store]
    if cached.is_dir():
        homes.append(LocalStore(str(cached)))
    for home in homes:
        if (content := _manifest_of(home)) is not None:
            return read_manifest(content, f"{home.root}/{MANIFEST}"), home
    names = [name for name in store.names() if name.endswith(".tar") and not name.startswith(".")]
    if not names:
        raise UserError(
            f"there are no shards in {store.root}: DATA.ROOT must hold train/ and val/ with tar"
            " files, as `virtex pack` writes them"
        )
    home = _home(store, names[0], LocalStore(str(cached)))
    _make_indexes(store, names, home)
    home.write(MANIFEST, _manifest(names, home))
    return read_manifest(home.read(MANIFEST), f"{home.root}/{MANIFEST}"), home


def _manifest_of(home: Store) -> bytes | None:
    # Asked for by its name: not every store can be listed.
    try:
        return home.read(MANIFEST)
    except RunError:
        raise
    except UserError:
        return None


def _home(store: Store, first: str, cache: LocalStore) -> Store:
    """The first place that takes the index of the `first` shard."""
    content = _existing(store, first, store) or index_tar(store, first).to_bytes()
    memory = MemoryStore(f"(indexes of {store.root})")
    return next(home for home in (store, cache, memory) if home.write(index_name(first), content))


def _make_indexes(store: Store, names: list[str], home: Store) -> None:
    # Each process in an order of its own, so that those of one job share the work.
    own = os.getpid()
    for name in sorted(names, key=lambda name: zlib.crc32(f"{own} {name}".encode())):
        if _existing(store, name, home) is None:
            home.write(index_name(name), index_tar(store, name).to_bytes())


def _existing(store: Store, name: str, home: Store) -> bytes | None:
    """The index of a shard from an earlier time, if it is there and of a tar file of this size."""
    try:
        content = home.read(index_name(name))
        index = read_index(content, f"{home.root}/{index_name(name)}")
    except UserError:
        return None
    return content if index.tar_bytes == store.size(name) else None


def _manifest(names: list[str], home: Store) -> bytes:
    summaries, ranges, left_out = [], [], []
    sources, labels = set(), set()
    for name in names:
        index = read_index(home.read(index_name(name)), f"{home.root}/{index_name(name)}")
        summaries.append(summary(name, index))
        left_out += [f"{name}: {line}" for line in index.left_out]
        if len(index.rows):
            ranges.append(_range(index))
            sources.add(index.ids)
            labels.add(index.labels)
    if not summaries or not ranges:
        raise UserError(f"the shards of {home.root} hold no picture with a caption")
    ranges.sort()
    apart = all(one[1] < other[0] for one, other in pairwise(ranges))
    both: Labels = "categories" if labels == {"categories"} else "captions"
    told = apart and len(sources) == 1 and sources != {"names"}
    if len(left_out) > _REPORTED:
        left_out = [*left_out[:_REPORTED], f"and so on, {len(left_out) - _REPORTED} lines more"]
    return written_manifest(summaries, labels=both, hashed_ids=not told, left_out=left_out)


def _range(index: TarIndex) -> tuple[int, int]:
    image_ids = index.rows["image_id"]
    return int(image_ids.min()), int(image_ids.max())

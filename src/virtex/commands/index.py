"""`virtex index`: indexes of tar shards that others have written, before a run needs them."""

import argparse
import os
import sys
import time
from typing import TYPE_CHECKING

from virtex.commands.arguments import add_quiet_argument, local_path, positive_int
from virtex.commands.layout_arguments import SHARD_FLAGS, add_layout_arguments
from virtex.commands.progress import Progress

if TYPE_CHECKING:
    from virtex.data.shards.indexing import Indexing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "directory",
        metavar="DIR",
        help="directory or address of shards, or one with train/ and val/, as DATA.ROOT",
    )
    add_layout_arguments(parser, SHARD_FLAGS)
    parser.add_argument(
        "--cache-dir",
        type=local_path,
        metavar="DIR",
        help="directory for indexes that cannot be written beside the shards, as DATA.CACHE_DIR",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=os.cpu_count(),
        metavar="N",
        help="number of worker processes (default: one per core)",
    )
    add_quiet_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Index all shards and print a summary; raises `UserError`."""
    from virtex.data.shards.parallel_indexing import index_directory

    for indexing in _directories(arguments):
        start = time.monotonic()
        root = indexing.store.root
        with Progress(root, None, "MB", quiet=arguments.quiet) as progress:
            shown = 0

            def advance(name: str, done: int, total: int) -> None:
                nonlocal shown
                new = done // 10**6 - shown
                shown += new
                progress.advance(new, f"of {total // 10**6:,} MB, {name}")

            manifest, home, made = index_directory(indexing, advance, workers=arguments.workers)
        for line in (*manifest.report, *manifest.excluded):
            print(f"{root}: {line}")
        state = "indexed" if made else "were indexed already"
        print(
            f"{root}: {len(manifest.names):,} shards with {int(manifest.samples.sum()):,} samples"
            f" {state}, {home.root}/{manifest.name}, {time.monotonic() - start:.1f} s"
        )
    return 0


def _notify(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _directories(arguments: argparse.Namespace) -> "list[Indexing]":
    """The directories to index: DIR, or train and val in it, or its shards of each split."""
    from virtex.data.remote.store import open_store
    from virtex.data.shards.indexing import Indexing, has_shards
    from virtex.data.shards.sample_text import TextFormat
    from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames
    from virtex.data.shards.store import cache_directory

    form = TextFormat(arguments.caption_column, arguments.encoding or "utf-8")
    cache_dir = cache_directory(arguments.cache_dir)
    root = arguments.directory.rstrip("/")

    def of(place: str, names: ShardNames = ALL_SHARDS) -> Indexing:
        store = open_store(place, cache_dir=cache_dir, cache_gb=50.0, notify=_notify)
        return Indexing(store, cache_dir, names, form)

    inside = [each for each in map(of, (f"{root}/train", f"{root}/val")) if has_shards(each)]
    by_name = [of(root, ShardNames("train")), of(root, ShardNames("val"))]
    return inside or (by_name if all(map(has_shards, by_name)) else [of(root)])

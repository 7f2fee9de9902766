"""A dataset of up to a billion samples: time and memory to open it and to draw its order.

    python benchmarks/index_at_scale.py [--samples 1000000 10000000 100000000 1000000000]

Shards hold 10,000 samples. A store creates their indexes when they are read, each with the same
rows, so that no terabytes are needed; everything else is the package's own code. For each size a
new process opens the dataset, draws the first batch at the middle of an epoch, then the keys and
positions of 10,000 samples, then only the keys of batches over four windows. Prints a JSON line for
each size.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from virtex.data.dataset import Key
from virtex.data.order import DEFAULT_WINDOW, training_keys
from virtex.data.shards.manifest import MANIFEST, ShardSummary, manifest_json
from virtex.data.shards.reader import Shards, open_shards
from virtex.data.shards.store import FileVersion
from virtex.data.shards.tar_index import ROW, TarIndex

PER_SHARD, BATCH, POSITIONS = 10000, 256, 10000
PICTURE_BYTES, TEXT = 20000, b'{"caption":"a cat"}'


class SyntheticStore:
    """`samples` samples in shards; the tar files themselves hold nothing but texts."""

    root = "synthetic"

    def __init__(self, samples: int) -> None:
        self._shards = samples // PER_SHARD
        rows = np.zeros(PER_SHARD, ROW)
        rows["image_id"] = np.arange(PER_SHARD)
        rows["image_offset"] = 512 + np.arange(PER_SHARD) * PICTURE_BYTES
        rows["image_bytes"] = PICTURE_BYTES
        self._tar_bytes = PER_SHARD * (PICTURE_BYTES + 1024)
        self._index = TarIndex(rows, self._tar_bytes, "0" * 64, "keys").to_bytes()

    def list_files(self) -> dict[str, FileVersion]:
        names = [*(f"{shard:06}.tar" for shard in range(self._shards)), MANIFEST]
        return {name: FileVersion(self.size(name), "") for name in names}

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        pass

    def size(self, name: str) -> int:
        return self._tar_bytes if name.endswith(".tar") else len(self._index)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:  # noqa: ARG002
        if name == MANIFEST:
            return self.manifest()
        return self._index

    def write(self, name: str, content: bytes) -> bool:  # noqa: ARG002
        return False

    def manifest(self) -> bytes:
        """The manifest that `virtex pack` would write; the benchmark keeps it in a file."""
        digest = hashlib.sha256(self._index).hexdigest()
        summaries = [
            ShardSummary(
                f"{shard:06}.tar", PER_SHARD, self._tar_bytes, "0" * 64, len(self._index), digest
            )
            for shard in range(self._shards)
        ]
        return manifest_json(summaries, labels="captions", hashed_ids=True)


class WithManifest(SyntheticStore):
    """The same, with a manifest that is read from a file."""

    def __init__(self, samples: int, path: Path) -> None:
        super().__init__(samples)
        self._path = path

    def manifest(self) -> bytes:
        return self._path.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening and ordering up to a billion samples.")
    parser.add_argument(
        "--samples", type=int, nargs="+", default=[10**6, 10**7, 10**8, 10**9], metavar="N"
    )
    arguments = parser.parse_args()
    for samples in arguments.samples:
        path = Path(f"/tmp/index_at_scale.{os.getpid()}.json")
        path.write_bytes(SyntheticStore(samples).manifest())
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(samples, path))
        process.start()
        process.join()
        path.unlink()
        if process.exitcode:
            sys.exit(process.exitcode)


def measure(samples: int, manifest: Path) -> None:
    """Print the figures of one size."""
    before = _peak_mb()
    start = time.perf_counter()
    store = WithManifest(samples, manifest)
    records = open_shards(
        store, "captions", "error", cache_dir=Path("/nowhere"), window=DEFAULT_WINDOW
    )
    opened = time.perf_counter()
    batches = len(records) // BATCH
    middle = iter(keys(records, first=batches // 2))
    next(middle)
    first = time.perf_counter()
    drawn = [key for batch in islice(middle, POSITIONS // BATCH) for key in batch]
    for key in drawn:
        place(records, key.position)
    placed = time.perf_counter()
    count = 4 * DEFAULT_WINDOW // BATCH
    for _ in islice(middle, min(count, batches // 2 - 100)):
        pass
    ended = time.perf_counter()
    result = {
        "benchmark": "index_at_scale",
        "samples": samples,
        "shards": samples // PER_SHARD,
        "manifest_mb": round(manifest.stat().st_size / 1e6, 1),
        "open_seconds": round(opened - start, 3),
        "first_batch_at_the_middle_seconds": round(first - opened, 3),
        "next_10000_places_seconds": round(placed - first, 3),
        "microseconds_a_batch_of_keys": round(
            1e6 * (ended - placed) / min(count, batches // 2 - 100), 1
        ),
        "batch_size": BATCH,
        "window": DEFAULT_WINDOW,
        "peak_mb": round(_peak_mb()),
        "peak_mb_above_imports": round(_peak_mb() - before),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result), flush=True)


def keys(records: Shards, first: int) -> Iterator[list[Key]]:
    """The batches of one process that trains alone, from iteration `first` on."""
    return training_keys(
        records.shard_sizes,
        window=DEFAULT_WINDOW,
        batch_size=BATCH,
        part=slice(None),
        seed=0,
        first_iteration=first,
    )


def place(records: Shards, position: int) -> None:
    """Find a sample in its shard's index, without its text, which does not exist."""
    shard = int(np.searchsorted(records._starts, position, side="right")) - 1
    records._rows(shard)[position - int(records._starts[shard])].item()


def _peak_mb() -> float:
    """Peak memory of this process; `getrusage` would include its parent's. Linux only."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    main()

"""Microseconds to read a sample: tar shard, index and pread against loose files.

    python benchmarks/shards.py DATA_ROOT [--split val] [--short-side 320] [--work-dir DIRECTORY]

DATA_ROOT is a directory in COCO's layout, packed into `--work-dir` without change. A sample is its
captions and the image's bytes, checked but not decoded; all samples are read in a random order from
the page cache, alternating between the kinds. Prints a JSON line with medians and their ratio.
"""

import argparse
import json
import os
import platform
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from virtex.data.images import read_bytes
from virtex.data.records import Records
from virtex.data.shards.pack import PackJob, pack
from virtex.data.shards.reader import open_shards
from virtex.data.shards.store import LocalStore
from virtex.data.shards.writer import Packing, Reduction, write_shard
from virtex.data.sources.coco import CocoCaptions


def main() -> None:
    parser = argparse.ArgumentParser(description="Microseconds to read a sample.")
    parser.add_argument("root", type=Path, metavar="DATA_ROOT", help="directory in COCO's layout")
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--short-side", type=int, help="shrink the images before packing")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=10, help="over all samples, in a repeat")
    parser.add_argument("--work-dir", type=Path, help="where to pack to (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work_dir) as directory:
        root = arguments.root
        if arguments.short_side is not None:
            root = _reduced(root, arguments.split, arguments.short_side, Path(directory, "files"))
        files = CocoCaptions(root, arguments.split, on_bad_image="skip")
        packed = Path(directory, arguments.split)
        pack(PackJob(files, packed, Packing(checked=False), 10000), lambda _: None)
        store = LocalStore(str(packed))
        shards = open_shards(store, "captions", "error", cache_dir=packed, window=131072)
        picture_bytes = sum(len(read_bytes(record.image)) for record in files) / len(files)
        kinds: dict[str, Records] = {"files": files, "shards": shards}
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for repeat in range(arguments.repeats + 1):
            for kind, records in kinds.items():
                seconds = _read_all(records, arguments.rounds)
                if repeat:  # the first fills the caches
                    times[kind].append(1e6 * seconds / (arguments.rounds * len(records)))
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    result = {
        "benchmark": "shards",
        "microseconds_a_sample": {kind: round(value, 1) for kind, value in medians.items()},
        "files_over_shards": round(medians["files"] / medians["shards"], 2),
        "repeats": arguments.repeats,
        "samples": len(files),
        "bytes_a_picture": round(picture_bytes),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result), flush=True)


def _reduced(root: Path, split: str, short_side: int, output: Path) -> Path:
    """A COCO tree of the same names and captions with smaller images."""
    files = CocoCaptions(root, split, on_bad_image="skip")
    packing = Packing(Reduction(short_side, 90))
    write_shard(files, range(len(files)), output.with_suffix(".tar"), packing)
    (output / f"{split}2017").mkdir(parents=True)
    (output / "annotations").symlink_to((root / "annotations").resolve())
    with tarfile.open(output.with_suffix(".tar")) as archive:
        images = [member for member in archive if member.name.endswith(".jpg")]
        for index, member in enumerate(images):
            image = archive.extractfile(member)
            assert image is not None
            (output / f"{split}2017" / files.path(index).name).write_bytes(image.read())
    return output


def _read_all(records: Records, rounds: int) -> float:
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    start = time.perf_counter()
    for _ in range(rounds):
        for index in order:
            read_bytes(records[index].image)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

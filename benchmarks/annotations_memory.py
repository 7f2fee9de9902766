"""Memory of as many captions as in COCO: 591,753 captions of 118,287 images.

    python benchmarks/annotations_memory.py

Writes such annotations into a temporary directory and loads them in a fresh process, whose loader
workers then read every record. The cost is the proportional set size (PSS, which counts shared
pages once) of that process and its workers, less the same with a thousandth of the records. Prints
a JSON line. Linux only; 20 seconds, 100 MB of disk.
"""

import argparse
import gc
import json
import multiprocessing
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

IMAGES, CAPTIONS = 118_287, 591_753
WORDS = (
    *("a", "the", "man", "woman", "dog", "sitting", "standing", "street", "with", "on"),
    "next to",
)
MEGABYTE = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory that a job needs for COCO's captions.")
    parser.add_argument("--workers", type=int, default=4, help="loader workers (default: 4)")
    parser.add_argument("--measure", type=Path, metavar="ROOT", help="only measure this COCO tree")
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.workers)))
        return
    with tempfile.TemporaryDirectory() as directory:
        few, all_of_them = Path(directory, "few"), Path(directory, "all")
        write_annotations(few, IMAGES // 1000, CAPTIONS // 1000)
        size = write_annotations(all_of_them, IMAGES, CAPTIONS)
        baseline, full = (_in_a_fresh_process(r, arguments.workers) for r in (few, all_of_them))
    result = {
        "benchmark": "annotations_memory",
        "images": IMAGES,
        "captions": CAPTIONS,
        "workers": arguments.workers,
        "file_mb": round(size / MEGABYTE),
        "load_seconds": full["load_seconds"],
        "load_peak_mb": full["load_peak_mb"],
        "cost_of_the_job_mb": round(full["pss_mb"] - baseline["pss_mb"]),
        "job_without_them_mb": round(baseline["pss_mb"]),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


def write_annotations(root: Path, images: int, captions: int) -> int:
    """Write annotations in COCO's format, 52 characters a caption; returns the bytes."""
    rng = random.Random(0)
    ids = rng.sample(range(1, 600_000), images)
    path = root / "annotations" / "captions_train2017.json"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write('{"info": {}, "images": [')
        file.write(", ".join(json.dumps(_image(image_id)) for image_id in ids))
        file.write('], "annotations": [')
        file.write(
            ", ".join(
                json.dumps(
                    {
                        "image_id": ids[n % images],
                        "id": n,
                        "caption": " ".join(rng.choices(WORDS, k=11))[:52],
                    }
                )
                for n in range(captions)
            )
        )
        file.write("]}")
    return path.stat().st_size


def _image(image_id: int) -> dict[str, object]:
    return {
        "license": 3,
        "file_name": f"{image_id:012}.jpg",
        "coco_url": f"http://images.cocodataset.org/train2017/{image_id:012}.jpg",
        "height": 480,
        "width": 640,
        "date_captured": "2013-11-14 17:02:52",
        "flickr_url": f"http://farm7.staticflickr.com/6116/{image_id:010}_8c77d89b00_z.jpg",
        "id": image_id,
    }


def _in_a_fresh_process(root: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", str(root), "--workers", str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure(root: Path, workers: int) -> dict[str, float]:
    """Load the annotations, then read all records in the workers."""
    import torch

    from virtex.data.loader import training_batches
    from virtex.data.sources.coco import CocoCaptions

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of the imports
    before = _kilobytes("/proc/self/status", "VmRSS")
    start = time.perf_counter()
    records = CocoCaptions(root, "train")
    seconds = time.perf_counter() - start
    peak = _kilobytes("/proc/self/status", "VmHWM") - before

    class Reading:
        """Everything that a worker does for an example, except for its image."""

        def __len__(self) -> int:
            return len(records)

        def examples(
            self, keys: Sequence[tuple[int, int]]
        ) -> tuple[list[dict[str, object]], list[Exception]]:
            return [{"captions": len(records[index].captions)} for _, index in keys], []

    def collate(examples: Sequence[dict[str, int]]) -> dict[str, torch.Tensor]:
        return {"captions": torch.tensor([example["captions"] for example in examples])}

    batch_size = len(records) // 100
    batches = training_batches(Reading(), collate, batch_size=batch_size, workers=workers, seed=0)
    for _ in range(100):
        next(batches)
    gc.collect()  # every longer job does, and copies the pages that it writes to
    processes = ["self", *(str(worker.pid) for worker in multiprocessing.active_children())]
    pss = sum(_kilobytes(f"/proc/{process}/smaps_rollup", "Pss") for process in processes)
    return {
        "load_seconds": round(seconds, 2),
        "load_peak_mb": round(peak * 1024 / MEGABYTE),
        "pss_mb": pss * 1024 / MEGABYTE,
    }


def _kilobytes(path: str, name: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(f"{path} has no {name}")


if __name__ == "__main__":
    main()

"""Images per second of the loader: read, decode, augment, tokenize, collate.

    python benchmarks/loader.py DATA_ROOT [--workers 0 1 2] [--split val]

DATA_ROOT is a directory in COCO's layout. The chain is that of the base configuration (224 px),
with a vocabulary made of the directory's own captions; two batches per worker warm up, then each
repeat takes `--seconds`. Prints a JSON line for each number of workers, with the median repeat.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch

from virtex.data.dataset import ExampleDataset
from virtex.data.images import simplejpeg
from virtex.data.loader import LoadedBatch, training_batches
from virtex.data.sources.coco import CocoCaptions
from virtex.data.transforms import ColorJitter, HorizontalFlip, RandomResizedCrop
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.captioning import CaptionEncoder
from virtex.text.tokenizer import Tokenizer, train

CROP, MAX_LENGTH, WARM_UP = 224, 30, 2


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of the loader.")
    parser.add_argument("root", type=Path, metavar="DATA_ROOT", help="directory in COCO's layout")
    parser.add_argument("--split", choices=("train", "val"), default="train")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--vocab-size", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each repeat")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # with 0 workers, too, one thread loads
    cv2.setNumThreads(0)
    records = CocoCaptions(arguments.root, arguments.split, on_bad_image="skip")
    captions = [caption for record in records for caption in record.captions]
    encoder = CaptionEncoder(
        CaptionTokens(Tokenizer.from_bytes(train(captions, arguments.vocab_size)), MAX_LENGTH)
    )
    transforms = (RandomResizedCrop(CROP), HorizontalFlip(), ColorJitter())
    dataset = ExampleDataset(records, transforms, encoder.encode, seed=0)
    for workers in arguments.workers:
        batches = training_batches(
            dataset, encoder.collate, batch_size=arguments.batch_size, workers=workers, seed=0
        )
        for _ in range(WARM_UP * max(1, workers)):
            next(batches)
        rates = [_rate(batches, arguments.seconds) for _ in range(arguments.repeats)]
        result = {
            "benchmark": "loader",
            "images_per_second": round(statistics.median(rates), 1),
            "repeats": [round(rate, 1) for rate in rates],
            "workers": workers,
            "batch_size": arguments.batch_size,
            "crop": CROP,
            "images": len(records),
            "jpeg_decoder": "pillow" if simplejpeg is None else "simplejpeg",
            "opencv": cv2.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "processor": _processor(),
            "cores": os.cpu_count(),
        }
        print(json.dumps(result), flush=True)


def _rate(batches: Iterator[LoadedBatch], seconds: float) -> float:
    images = 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        images += len(next(batches).batch["image"])
    return images / elapsed


def _processor() -> str:
    """The processor's name on Linux, elsewhere its architecture."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(": ")[2]
    return platform.machine()


if __name__ == "__main__":
    main()

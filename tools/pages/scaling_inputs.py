"""Sizes of JPEG files and a checkpoint, and the time to start: inputs of `tools/pages/scaling.py`.

    python tools/pages/scaling_inputs.py datasets/coco/train2017

Prints JSON lines for `benchmarks/results`; takes a minute or two.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import torch

from virtex.build.model import build_objective
from virtex.build.optimizer import build_optimizer
from virtex.checkpoints.file import save
from virtex.config import loading as settings
from virtex.config.schema import Config

BASE = (
    Path(__file__).parents[2]
    / "src"
    / "virtex"
    / "configs"
    / "_base_bicaptioning_R_50_L1_H1024.yaml"
)


def measure(images: Path) -> Iterable[dict[str, Any]]:
    """JPEG sizes below a directory, and one checkpoint of the base configuration."""
    where = {"torch": torch.__version__, "python": sys.version.split()[0], "cores": os.cpu_count()}
    yield {"benchmark": "scaling_jpeg", **_jpeg_sizes(images)}
    yield {"benchmark": "scaling_save", **_save_times(), **where}
    build_it = (
        "import pathlib; from virtex.build.model import build_objective;"
        " from virtex.config import loading;"
        f" from virtex.config.schema import Config; base = pathlib.Path({str(BASE)!r});"
        " from virtex.build.optimizer import build_optimizer;"
        " c = loading.load(Config, base); build_optimizer(c, build_objective(c))"
    )
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", build_it], check=True)
        times.append(round(time.perf_counter() - start, 1))
    yield {"benchmark": "scaling_start", "seconds": statistics.median(times), "repeats": times} | (
        where
    )


def _jpeg_sizes(images: Path) -> dict[str, Any]:
    paths = sorted(images.rglob("*.jpg"))
    small = []
    for path in paths:
        pixels = cv2.imread(str(path))
        assert pixels is not None, path
        scale = min(1.0, 320 / min(pixels.shape[:2]))
        size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        _, encoded = cv2.imencode(".jpg", resized, [cv2.IMWRITE_JPEG_QUALITY, 90])
        small.append(len(encoded))
    return {
        "images": len(paths),
        "mean_bytes": round(statistics.mean(path.stat().st_size for path in paths)),
        "mean_bytes_short_side_320_quality_90": round(statistics.mean(small)),
    }


def _save_times() -> dict[str, Any]:
    config = settings.load(Config, BASE)
    objective = build_objective(config)
    optimizer = build_optimizer(config, objective)
    for parameter in objective.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # so that momentum and slow weights exist
    state = {"model": objective.state_dict(), "optimizer": optimizer.state_dict()}
    copies, writes = [], []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "checkpoint_1.pth"
        for _ in range(3):
            start = time.perf_counter()
            copied = copy.deepcopy(state)
            middle = time.perf_counter()
            save(path, copied)
            copies.append(middle - start)
            writes.append(time.perf_counter() - middle)
        size = path.stat().st_size
    return {
        "bytes": size,
        "copy_seconds": round(statistics.median(copies), 2),
        "write_seconds": round(statistics.median(writes), 2),
        "repeats": len(writes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="directory of JPEG files")
    for line in measure(parser.parse_args().images):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

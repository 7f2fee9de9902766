"""How long training waits for a checkpoint of the base configuration, saved in the background.

    python benchmarks/saving.py [--batch 4] [--repeats 5] [--directory DIR]

One JSON line: megabytes, median seconds to copy the state (what the loop waits for), to write and
verify it, a step alone and one while a file is written, and the share of 2,000 steps that is lost.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from step import BASE, caption_batch, our_step

from virtex.build.model import build_objective
from virtex.build.optimizer import build_optimizer
from virtex.checkpoints.background import BackgroundSaver
from virtex.checkpoints.file import checkpoint_path
from virtex.config import loading as settings
from virtex.config.schema import Config

EVERY = 2000
"""Iterations between checkpoints, the default of `--checkpoint-every`."""


def state_of_a_run() -> dict[str, object]:
    """Weights, momentum and slow weights, as large as a run's."""
    config = settings.load(Config, BASE)
    model = build_objective(config)
    optimizer = build_optimizer(config, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "iteration": 1}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    state = state_of_a_run()
    device = torch.device("cpu")
    batch = caption_batch(arguments.batch, np.full(arguments.batch, 15), device)
    step = our_step(batch, torch.float32, True, device)
    step()
    saver = BackgroundSaver()
    copies, writes, alone, beside = [], [], [], []
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        path = checkpoint_path(Path(directory), 1)
        for _ in range(arguments.repeats):
            alone += [seconds(step) for _ in range(3)]
            start = time.perf_counter()
            copies.append(seconds(lambda: saver.save(path, state)))
            while not saver.finished():
                beside.append(seconds(step))
            writes.append(time.perf_counter() - start)
            saver.finish()
        size = path.stat().st_size
    copy, write, one, busy = map(statistics.median, (copies, writes, alone, beside))
    # Steps take longer only while the file is being written.
    lost = copy + write * max(0.0, 1 - one / busy)
    result = {
        "benchmark": "saving",
        "megabytes": round(size / 1e6),
        "copy_seconds": round(copy, 3),
        "write_and_verify_seconds": round(write, 2),
        "step_seconds": round(one, 3),
        "step_while_writing_seconds": round(busy, 3),
        "lost_seconds": round(lost, 2),
        "lost_percent_of_2000_steps": round(100 * lost / (EVERY * one), 3),
        "lost_percent_of_2000_steps_of_150_ms": round(100 * lost / (EVERY * 0.15), 2),
        "batch": arguments.batch,
        "torch": str(torch.__version__),
        "cores": torch.get_num_threads(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

"""Training steps of a configuration on this machine, against a plain implementation.

    python benchmarks/step.py [--batch 16] [--repeats 5] [--device cpu]

One JSON line each: images per second (median of the repeats) in float32 and bfloat16, contiguous
and channels-last, with captions of 30 tokens and of COCO's lengths, and the ratio to the plain
version, timed alternately.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from plain import PlainBicaptioning
from torch import Tensor

from virtex.build.model import build_objective
from virtex.build.optimizer import build_optimizer, build_schedule
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.distributed.world import World
from virtex.training.loop import TrainState, optimize
from virtex.training.precision import Precision

BASE = (
    Path(__file__).parent.parent
    / "src"
    / "virtex"
    / "configs"
    / "_base_bicaptioning_R_50_L1_H1024.yaml"
)


def caption_batch(batch: int, lengths: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """A batch of random images and captions of the given lengths, like the loader's."""
    rng = np.random.default_rng(0)
    tokens = [torch.tensor([1, *rng.integers(4, 10000, n - 2), 2]) for n in lengths]

    def pad(rows: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)

    image = torch.from_numpy(rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
    tensors = {
        "image_id": torch.arange(batch),
        "dropout_key": torch.from_numpy(rng.integers(0, 2**63, batch)),
        "image": image.permute(0, 3, 1, 2),
        "caption_tokens": pad(tokens),
        "reversed_tokens": pad([row.flip(0) for row in tokens]),
        "caption_lengths": torch.tensor(lengths),
    }
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def our_step(
    batch: dict[str, Tensor], dtype: torch.dtype, channels_last: bool, device: torch.device
) -> Callable[[], None]:
    """One step of the base configuration: forward, backward, clip, SGD and Lookahead."""
    layout = str(channels_last).lower()
    config = settings.load(Config, BASE, ["CHANNELS_LAST", layout])
    model = build_objective(config).to(device)
    precision = Precision(dtype, device.type, "benchmark")
    optimizer, schedule = build_optimizer(config, model), build_schedule(config)
    scaler = precision.gradient_scaler()
    steps = optimize(
        TrainState(model, model, optimizer, schedule, scaler, precision),
        iter(lambda: batch, None),
        clip_grad_norm=10.0,
        max_nonfinite_steps=0,
        seed=0,
        world=World(rank=0, size=1, device=device),
        first=1,
        last=10**6,
    )
    return lambda: _synchronised(lambda: next(steps), device)


def plain_step(batch: dict[str, Tensor], device: torch.device) -> Callable[[], None]:
    """One step of the plain network, with a parameter group for each parameter."""
    model = PlainBicaptioning().to(device)
    groups = [{"params": [parameter]} for parameter in model.parameters()]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, weight_decay=1e-4)
    images = batch["image"].float().contiguous() / 255

    def step() -> None:
        optimizer.zero_grad()
        names = ("caption_tokens", "reversed_tokens", "caption_lengths")
        model(images, *(batch[name] for name in names)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return lambda: _synchronised(step, device)


def _synchronised(call: Callable[[], object], device: torch.device) -> None:
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()


def alternating_seconds(steps: list[Callable[[], None]], repeats: int) -> list[list[float]]:
    """Times of the steps, which alternate, after one warm-up of each."""
    times: list[list[float]] = [[] for _ in steps]
    for repeat in range(repeats + 1):
        for step, record in zip(steps, times, strict=True):
            start = time.perf_counter()
            step()
            if repeat:
                record.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    device = arguments.device
    rng = np.random.default_rng(1)
    lengths = {
        "30 tokens": np.full(arguments.batch, 30),
        # COCO's captions have 8 to 20 pieces for the most part.
        "COCO's lengths": np.clip(rng.normal(13, 3, arguments.batch).round().astype(int), 8, 30),
    }
    where = {"device": platform.processor() or platform.machine(), "torch": torch.__version__}
    if device.type == "cuda":
        where["device"] = torch.cuda.get_device_name()
    where["threads"] = torch.get_num_threads()
    for name, counts in lengths.items():
        batch = caption_batch(arguments.batch, counts, device)
        variants = {
            "plain float32": plain_step(batch, device),
            "float32 contiguous": our_step(batch, torch.float32, False, device),
            "float32 channels-last": our_step(batch, torch.float32, True, device),
            "bfloat16 channels-last": our_step(batch, torch.bfloat16, True, device),
        }
        times = alternating_seconds(list(variants.values()), arguments.repeats)
        for variant, seconds in zip(variants, times, strict=True):
            ratio = statistics.median(p / s for p, s in zip(times[0], seconds, strict=True))
            line = {
                "benchmark": "step",
                "captions": name,
                "variant": variant,
                "images_per_second": round(arguments.batch / statistics.median(seconds), 2),
                "ratio_to_plain": round(ratio, 2),
                "repeats": arguments.repeats,
                **where,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

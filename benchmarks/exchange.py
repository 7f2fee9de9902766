"""How much of the exchange of gradients is hidden behind the backward pass, by the bucket layout.

    PYTHONPATH=. python benchmarks/exchange.py [--processes 2] [--batch 4] [--repeats 7]

The processes run the base configuration on this machine's CPU over gloo. The layouts `rebuilt`
(torch's default, a static graph: one bucket in the first steps, later ones by the order in which
gradients were ready) and `fixed` (`virtex.distributed.data_parallel`) are timed alternately with
the same passes without an exchange. Prints a JSON line for each: median seconds of forward and
backward pass, the seconds that the exchange adds, and torch's own mean of the seconds of exchange.
"""

import argparse
import json
import os
import statistics
import time
import warnings

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from step import BASE, caption_batch
from tools.faults.jobs import free_port
from torch.nn.parallel import DistributedDataParallel

from virtex.build.model import build_objective
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.distributed.data_parallel import data_parallel
from virtex.distributed.environment import read_environment
from virtex.distributed.traffic import Traffic
from virtex.distributed.world import Timeouts, World, connect
from virtex.tasks.base import Objective

WARM_UP = 4
"""Passes before the first timed one; torch builds its final buckets after two or three."""


def rebuilt(objective: Objective, _: World) -> torch.nn.Module:
    """Wrap the objective as torch does by default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            objective, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=True
        )


def train(rank: int, port: int, processes: int, batch: int, repeats: int) -> None:
    """Run one process: both layouts alternately; rank 0 prints."""
    variables = {"RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", **{name: str(n) for name, n in variables.items()}}
    torch.set_num_threads(1)
    with connect(read_environment(), gpus=False, timeouts=Timeouts()) as (world, _):
        inputs = caption_batch(batch, np.full(batch, 15), torch.device("cpu"))
        config = settings.load(Config, BASE)
        seconds: dict[str, list[tuple[float, float]]] = {"rebuilt": [], "fixed": []}
        cases = []
        for name, wrap in (("rebuilt", rebuilt), ("fixed", data_parallel)):
            parallel, traffic = wrap(build_objective(config), world), Traffic()
            traffic.watch(parallel)
            cases.append((name, parallel, traffic))
        plain = build_objective(config)
        for repeat in range(WARM_UP + repeats):
            alone = passes(world, plain, inputs)
            for name, parallel, _ in cases:
                together = passes(world, parallel, inputs)
                if repeat >= WARM_UP:
                    seconds[name].append((together, alone))
        if world.main:
            for name, _, traffic in cases:
                line = summary(name, processes, batch, seconds[name])
                line["exchange_seconds"] = round(traffic.seconds_per_step, 3)
                print(json.dumps(line))


def passes(world: World, module: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> float:
    """Seconds of a forward and a backward pass, started by all processes together."""
    module.zero_grad()
    world.wait()
    start = time.perf_counter()
    torch.stack([term.total / term.items for term in module(inputs).values()]).sum().backward()
    return time.perf_counter() - start


def summary(
    layout: str, processes: int, batch: int, rows: list[tuple[float, float]]
) -> dict[str, object]:
    """Medians; the added time is the median difference within pairs."""
    added = statistics.median(one - other for one, other in rows)
    return {
        "benchmark": "exchange",
        "layout": layout,
        "processes": processes,
        "batch": batch,
        "seconds": round(statistics.median(one for one, _ in rows), 3),
        "added_seconds": round(added, 3),
        "torch": str(torch.__version__),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    arguments = (free_port(), given.processes, given.batch, given.repeats)
    multiprocessing.spawn(train, arguments, nprocs=given.processes)


if __name__ == "__main__":
    main()

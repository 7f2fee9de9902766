"""Steps over several processes are those of one: the same losses, gradients and weights.

In float64, so that a loss that is divided wrongly cannot hide behind rounding.
"""

import json
import os
import subprocess
import sys

import pytest

STEPS = """
import itertools, json, sys
import torch
from tests import small
from virtex.models.sync_batch_norm import synchronise_batch_norm
from virtex.optim import schedules
from virtex.optim.groups import parameter_groups
from virtex.optim.lookahead import Lookahead
from virtex.pretraining import distributed
from virtex.runtime.precision import choose_precision
from virtex.runtime.cluster import find_place
from virtex.runtime.world import Limits, connect
from virtex.training import optimize, validate

def rows_of_this_process(world, seed):
    part = 8 // world.size
    rows = list(range(world.rank * part, (world.rank + 1) * part))
    return small.rows_of(small.batch(8, seed=seed), rows)

def main(accumulate, sync, frozen):
    with connect(find_place(), gpus=False, limits=Limits()) as (world, _):
        model = small.captioning(dropout=0.3, frozen=frozen).double()
        if sync and world.size > 1:
            synchronise_batch_norm(model.visual.cnn, world.device)
        groups = parameter_groups(
            model, visual_lr=0.05, textual_lr=0.02, weight_decay=1e-3, no_decay=".*bias"
        )
        sgd = torch.optim.SGD([dict(group) for group in groups], lr=0.05, momentum=0.9)
        precision = choose_precision(False, world.device)
        steps = optimize(
            model,
            (rows_of_this_process(world, seed) for seed in itertools.count()),
            Lookahead(sgd, alpha=0.5, steps=3),
            schedules.cosine(2, 8),
            scaler=precision.gradient_scaler(),
            precision=precision,
            clip_grad_norm=1.0,
            max_nonfinite_steps=0,
            seed=0,
            world=world,
            parallel=distributed(model, world, accumulate=accumulate),
            accumulate=accumulate,
            first=1,
            last=7,
        )
        figures = []
        for step in steps:
            losses = world.sum(torch.stack(list(step.losses.values()))) / world.size
            figures.append([*losses.tolist(), step.gradient_norm.item()])
        # Of four processes one has no batch at all.
        rows = [[0, 4, 1], [5, 2], [3]][world.rank :: world.size]
        batches = [small.rows_of(small.batch(6, seed=99), part) for part in rows]
        means = validate(
            model, batches, precision=precision, sum_over_processes=world.sum
        )
        figures.append(list(means.values()))
        figures.append([float(value.double().norm()) for value in model.state_dict().values()])
        if world.main:
            print(json.dumps(figures))

main(*json.loads(sys.argv[1]))
"""


def figures(directory, processes, *, accumulate=1, sync=False, frozen=False):
    """Losses and gradient norm of each step, validation's means, norms of weights and buffers."""
    script = directory / "steps.py"
    script.write_text(STEPS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    ended = subprocess.run(
        [sys.executable, *torchrun, script, json.dumps([accumulate, sync, frozen])],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def assert_equal(ours, theirs, rel=1e-10):
    """Rounding in float64 is 1e-16; seven steps and batch norm make more of it."""
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=rel, abs=1e-13)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return figures(tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize("processes", [2, 4])
def test_synchronised_processes_are_one(alone, tmp_path, processes):
    assert_equal(figures(tmp_path, processes, sync=True), alone)


def test_processes_with_accumulation_are_one(tmp_path):
    """Batch norm does not see the division where the backbone is frozen."""
    expected = figures(tmp_path, 1, frozen=True)
    assert_equal(figures(tmp_path, 2, accumulate=2, frozen=True), expected)


def test_the_parts_of_one_process_are_processes(tmp_path):
    """With batch norm for each part: the same steps; other running statistics, as published."""
    ours = figures(tmp_path, 2)
    theirs = figures(tmp_path, 1, accumulate=2)
    assert_equal(ours[:7], theirs[:7])

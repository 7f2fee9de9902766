"""Steps over several processes are those of one: the same losses, gradients and weights.

In float64, so that a loss that is divided wrongly cannot hide behind rounding. A run that resumes
takes the same steps bit for bit, in float32, where each order of summation rounds differently.
"""

import json
import os
import subprocess
import sys

import pytest

STEPS = """
import copy, itertools, json, sys
import torch
from tests import small
from virtex.models.sync_batch_norm import synchronise_batch_norm
from virtex.optim import schedules
from virtex.optim.groups import parameter_groups
from virtex.optim.lookahead import Lookahead
from virtex.training.precision import choose_precision
from virtex.distributed.data_parallel import data_parallel
from virtex.distributed.environment import read_environment
from virtex.distributed.world import Timeouts, connect
from virtex.training.loop import TrainState, optimize, validate

def rows_of_this_process(world, rows, seed):
    part = rows // world.size
    share = list(range(world.rank * part, (world.rank + 1) * part))
    return small.rows_of(small.batch(rows, seed=seed), share)

def learning_more(batch):
    # One or two captions of an image, and labels; an image whose tokens are all ignored has none.
    images, counts = batch["image_id"], 1 + batch["image_id"] % 2
    batch = batch | {"all_tokens": batch["caption_tokens"] * (images % 3 > 0).unsqueeze(1)}
    if int(counts.sum()) == len(images):
        return batch
    for name in ("dropout_key", "caption_tokens", "reversed_tokens", "caption_lengths"):
        batch[name] = batch[name].repeat_interleave(counts, dim=0)
    second = torch.cat([torch.arange(count) for count in counts])
    return batch | {"captions_per_image": counts, "dropout_key": batch["dropout_key"] + second}

class Training:
    def __init__(
        self, world, accumulate, sync, frozen, auxiliary=False, dtype=torch.float64
    ):
        self.world, self.accumulate = world, accumulate
        self.adapt = learning_more if auxiliary else dict
        self.model = small.captioning(dropout=0.3, frozen=frozen)
        if auxiliary:
            self.model.attach({"tokens": small.tokens_head()}, {"tokens": 0.5})
        self.model.to(dtype)
        if sync and world.size > 1:
            synchronise_batch_norm(self.model.visual.cnn, world.device)
        groups = parameter_groups(
            self.model, visual_lr=0.05, textual_lr=0.02, weight_decay=1e-3, no_decay=".*bias"
        )
        sgd = torch.optim.SGD([dict(group) for group in groups], lr=0.05, momentum=0.9)
        self.optimizer = Lookahead(sgd, alpha=0.5, steps=3)
        self.precision = choose_precision(False, world.device)

    def steps(self, rows, first=1, last=7):
        state = TrainState(
            self.model,
            data_parallel(self.model, self.world),
            self.optimizer,
            schedules.cosine(2, 8),
            self.precision.gradient_scaler(),
            self.precision,
        )
        return optimize(
            state,
            (
                self.adapt(rows_of_this_process(self.world, rows, seed))
                for seed in itertools.count(first)
            ),
            clip_grad_norm=1.0,
            max_nonfinite_steps=0,
            seed=0,
            world=self.world,
            accumulate=self.accumulate,
            first=first,
            last=last,
        )

def agree(world, *settings):
    training = Training(world, *settings)
    figures = []
    for step in training.steps(8):
        losses = world.sum(torch.stack(list(step.losses.values()))) / world.size
        figures.append([*losses.tolist(), step.gradient_norm.item()])
    # Of four processes one has no batch at all.
    rows = [[0, 4, 1], [5, 2], [3]][world.rank :: world.size]
    batches = [training.adapt(small.rows_of(small.batch(6, seed=99), part)) for part in rows]
    means = validate(
        training.model, batches, precision=training.precision, sum_over_processes=world.sum
    )
    figures.append(list(means.values()))
    state = training.model.state_dict()
    figures.append([float(value.double().norm()) for value in state.values()])
    return figures

def resume(world, *settings):
    # The names of the weights that differ from those of the uninterrupted run, by where it resumed.
    whole = Training(world, *settings, dtype=torch.float32)
    saved = {}
    for step in whole.steps(24):
        model, optimizer = whole.model.state_dict(), whole.optimizer.state_dict()
        saved[step.iteration] = copy.deepcopy((model, optimizer))
    differing = {}
    for iteration in (1, 2, 5):
        resumed = Training(world, *settings, dtype=torch.float32)
        model, optimizer = saved[iteration]
        resumed.model.load_state_dict(model)
        resumed.optimizer.load_state_dict(optimizer)
        for step in resumed.steps(24, first=iteration + 1):
            pass
        ours, theirs = dict(resumed.model.named_parameters()), dict(whole.model.named_parameters())
        differing[iteration] = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    return differing

with connect(read_environment(), gpus=False, timeouts=Timeouts()) as (world, _):
    laws = {"agree": agree, "resume": resume}
    results = [laws[law](world, *settings) for law, *settings in json.loads(sys.argv[1])]
    if world.main:
        print(json.dumps(results))
"""

PLAIN, ACCUMULATED, SYNCHRONISED = [1, False, False], [2, False, False], [1, True, False]
FROZEN, ACCUMULATED_FROZEN = [1, False, True], [2, False, True]
"""Of accumulated parts, synchronised batch norm, a frozen backbone."""
AUXILIARY, ACCUMULATED_AUXILIARY = [1, False, True, True], [2, False, True, True]
"""A frozen backbone, one or two captions an image, and an auxiliary loss over other items."""


def run(directory, processes, agree=(), resume=()):
    """What `agree` and `resume` of STEPS give for these settings, on `processes` processes."""
    script = directory / "steps.py"
    script.write_text(STEPS)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    cases = [*(["agree", *case] for case in agree), *(["resume", *case] for case in resume)]
    ended = subprocess.run(
        [sys.executable, *torchrun, script, json.dumps(cases)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    results = json.loads(ended.stdout)
    return results[: len(agree)], results[len(agree) :]


def assert_equal(ours, theirs, rel=1e-10):
    """Rounding in float64 is 1e-16; seven steps and batch norm make more of it."""
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=rel, abs=1e-13)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process: plain steps, with a frozen backbone, in two parts, with an auxiliary."""
    cases = [PLAIN, FROZEN, ACCUMULATED, AUXILIARY]
    return run(tmp_path_factory.mktemp("alone"), 1, agree=cases)[0]


RESUMED = [PLAIN, ACCUMULATED, SYNCHRONISED, FROZEN]
NOTHING_DIFFERS = [{"1": [], "2": [], "5": []}] * len(RESUMED)
"""Sums of three addends depend on their order, so on how torch divides them into buckets."""


def test_two_processes_are_one(alone, tmp_path):
    plain, frozen, accumulated, auxiliary = alone
    cases = [SYNCHRONISED, ACCUMULATED_FROZEN, PLAIN, ACCUMULATED_AUXILIARY]
    agreed, resumed = run(tmp_path, 2, agree=cases, resume=RESUMED)
    assert_equal(agreed[0], plain)
    # Batch norm does not see the division where the backbone is frozen.
    assert_equal(agreed[1], frozen)
    # With batch norm for each part: the same steps; other running statistics, as published.
    assert_equal(agreed[2][:7], accumulated[:7])
    assert_equal(agreed[3], auxiliary)
    assert resumed == NOTHING_DIFFERS


def test_three_processes_resume_as_the_uninterrupted_run(tmp_path):
    assert run(tmp_path, 3, resume=RESUMED)[1] == NOTHING_DIFFERS


@pytest.mark.slow  # two and three processes stay
def test_four_processes_are_one(alone, tmp_path):
    agreed, resumed = run(tmp_path, 4, agree=[SYNCHRONISED], resume=RESUMED)
    assert_equal(agreed[0], alone[0])
    assert resumed == NOTHING_DIFFERS

import itertools

import pytest
import torch
from torch import nn

from virtex.checkpoints.file import checkpoints
from virtex.distributed.signals import Stopped, StopRequest
from virtex.distributed.world import World
from virtex.errors import RunError, UserError
from virtex.evaluation.dense.reporting import Silence
from virtex.evaluation.dense.training import (
    LOSSES,
    Plan,
    Surroundings,
    find_progress,
    flags_of_evaluate,
    parameter_groups,
    train,
)
from virtex.optim.schedules import multistep
from virtex.training.precision import Precision

CPU = torch.device("cpu")


class Regression(nn.Module):
    """Batch norm, dropout and two losses: what a resumed training must reproduce."""

    loss_names = ("fit", "size")

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)
        )

    def forward(self, batch):
        predicted = self.layers(batch["x"])
        return {"fit": (predicted - batch["y"]).square().mean(), "size": predicted.abs().mean()}


def batches(first):
    for iteration in itertools.count(first):
        generator = torch.Generator().manual_seed(iteration)
        x = torch.randn(8, 3, generator=generator)
        yield {"x": x, "y": x.sum(dim=1, keepdim=True)}


def plan(directory, **changes):
    directory.mkdir(exist_ok=True)
    values = {
        "iterations": 7,
        "learning_rate": 0.1,
        "schedule": multistep(2, [5], 0.1),
        "seed": 3,
        "directory": directory,
        "save_every": 3,
        "settings": {"learning_rate": 0.1},
    }
    return Plan(**{**values, **changes})


def run(plan, resume=False, stop_at=None, data=batches):
    """The weights after a training, and its losses."""
    module = Regression()
    optimizer = torch.optim.SGD(parameter_groups(module, 1e-2), lr=0.1, momentum=0.9)
    request = StopRequest()
    counted = []

    class Stopping(Silence):
        def advance(self, count, detail=""):
            assert detail.startswith("loss ")
            counted.append(count)
            if len(counted) == stop_at:
                request.note(15)

    precision = Precision(torch.float32, "cpu", "")
    around = Surroundings(World(0, 1, CPU), precision, request, Stopping())
    done = train(module, optimizer, data, plan, around, find_progress(plan, resume))
    return module.state_dict(), done.losses


def test_resumed_equals_uninterrupted(tmp_path):
    weights, losses = run(plan(tmp_path / "whole"))
    with pytest.raises(Stopped, match=r"after iteration 4 of 7.*continue with --resume"):
        run(plan(tmp_path / "parts"), stop_at=4)
    resumed, resumed_losses = run(plan(tmp_path / "parts"), resume=True)
    assert torch.equal(losses, resumed_losses)
    assert weights.keys() == resumed.keys()
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    rows = (tmp_path / "parts" / LOSSES).read_text().splitlines()
    assert rows[0] == "iteration,fit,size"
    assert len(rows) == 8
    assert float(rows[3].split(",")[1]) == pytest.approx(float(losses[2, 0]), rel=1e-5)


def test_the_two_newest_checkpoints_are_kept_and_a_finished_training_is_not_repeated(tmp_path):
    weights, _ = run(plan(tmp_path))
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_6.pth", "checkpoint_7.pth"]

    def none(_):
        raise AssertionError("no batch is needed")

    again, losses = run(plan(tmp_path), resume=True, data=none)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert len(losses) == 7


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    weights, _ = run(plan(tmp_path))
    (tmp_path / "checkpoint_7.pth").write_bytes(b"damaged")
    again, _ = run(plan(tmp_path), resume=True)
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_another_training_is_neither_overwritten_nor_continued(tmp_path):
    run(plan(tmp_path))
    with pytest.raises(
        UserError, match="holds a training at iteration 7; continue it with --resume"
    ):
        run(plan(tmp_path))
    other = plan(tmp_path, settings={"learning_rate": 0.2})
    with pytest.raises(UserError, match=r"learning_rate 0\.1 there, 0\.2 now"):
        run(other, resume=True)


def test_losses_and_weights_that_are_not_finite_end_the_training_and_are_not_saved(tmp_path):
    def diverging(first):
        for iteration, batch in enumerate(batches(first), start=first + 1):
            yield {**batch, "y": batch["y"] * (float("inf") if iteration == 5 else 1)}

    with pytest.raises(RunError, match=r"not finite in iteration 5 \(fit inf.*--learning-rate"):
        run(plan(tmp_path / "loss"), data=diverging)
    assert [path.name for path in checkpoints(tmp_path / "loss")] == ["checkpoint_3.pth"]
    fast = plan(tmp_path / "weights", learning_rate=1e30, save_every=1, settings={})
    with pytest.raises(RunError, match="not finite"):
        run(fast)


def test_a_bad_image_loses_no_iteration(tmp_path):
    def damaged(first):
        for iteration, batch in enumerate(batches(first), start=first + 1):
            if iteration == 6:
                raise UserError("cannot read the image 3.jpg")
            yield batch

    with pytest.raises(UserError, match=r"cannot read the image 3\.jpg"):
        run(plan(tmp_path), data=damaged)
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint_3.pth", "checkpoint_5.pth"]


def test_norms_have_no_weight_decay():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    module[2].requires_grad_(False)
    normal, norms = parameter_groups(module, 0.5)
    assert [len(normal["params"]), normal["weight_decay"]] == [2, 0.5]
    assert [len(norms["params"]), norms["weight_decay"]] == [2, 0.0]


def test_messages_name_the_flags_of_this_command():
    with pytest.raises(RunError, match="continue with --resume in --work-dir"), flags_of_evaluate():
        raise RunError("continue with --resume-from latest in --serialization-dir")

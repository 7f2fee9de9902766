"""The best checkpoint: kept by value, whatever is removed, interrupted or copied."""

import json
import os

import pytest
import torch

from virtex.checkpoints.file import Retention, checkpoint_path, load, remove_old, save
from virtex.training.best_checkpoint import BestCheckpoint


@pytest.fixture
def write(tmp_path):
    """A function that logs the value of an iteration and saves its checkpoint."""

    def write(iteration, value=None):
        with (tmp_path / "scalars.jsonl").open("a", encoding="utf-8") as file:
            scalars = {} if value is None else {"evaluate/knn/top1": value}
            file.write(json.dumps({"iteration": iteration, **scalars}) + "\n")
        path = checkpoint_path(tmp_path, iteration)
        save(path, {"iteration": iteration, "model": {"w": torch.tensor(iteration)}})
        return path

    return write


def kept(directory):
    return load(directory / "checkpoint_best.pth")["iteration"]


@pytest.mark.parametrize(("lower", "values", "best"), [
    (False, [3.0, 5.0, 5.0, 4.0], 2),
    (True, [3.0, 1.0, 2.0, 1.0], 2),
    (False, [3.0, float("nan"), 2.0], 1),
])  # fmt: skip
def test_the_first_of_the_best_values_survives_retention_and_resumption(
    tmp_path, write, lower, values, best
):
    keeper = BestCheckpoint(tmp_path, "knn/top1", lower)
    for iteration, value in enumerate(values, 1):
        keeper.offer(iteration, value)
        keeper.saved(write(iteration, value))
        remove_old(tmp_path, Retention(1))
    assert kept(tmp_path) == best
    resumed = BestCheckpoint(tmp_path, "knn/top1", lower)
    assert resumed.restore() is None
    assert resumed.best == keeper.best
    assert resumed.best.iteration == best


def test_a_checkpoint_that_was_saved_before_the_kill_gets_its_name(tmp_path, write):
    write(1, 2.0)
    keeper = BestCheckpoint(tmp_path, "knn/top1")
    assert keeper.restore() is None
    assert kept(tmp_path) == 1


def test_weights_that_are_gone_are_named_and_the_next_are_the_best(tmp_path, write):
    write(1, 9.0).unlink()
    keeper = BestCheckpoint(tmp_path, "knn/top1")
    assert "the weights of iteration 1, the best so far by knn/top1, are not in" in keeper.restore()
    keeper.offer(2, 3.0)
    assert keeper.saved(write(2, 3.0))
    assert kept(tmp_path) == 2


def test_without_hard_links_it_is_a_copy(tmp_path, write, monkeypatch):
    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    keeper = BestCheckpoint(tmp_path, "knn/top1")
    for iteration, value in ((1, 2.0), (2, 3.0)):
        keeper.offer(iteration, value)
        path = write(iteration, value)
        keeper.saved(path)
        assert not (tmp_path / "checkpoint_best.pth").samefile(path)
        path.unlink()
    assert kept(tmp_path) == 2
    assert not list(tmp_path.glob(".*"))

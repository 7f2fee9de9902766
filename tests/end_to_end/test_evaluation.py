"""Evaluations during a run: they change nothing, survive interruptions, and keep the best."""

import json
import os
import random
import shutil
import signal

import numpy as np
import pytest
import torch
from tests.end_to_end.conftest import scalars
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint
from virtex.cli import main
from virtex.training import evaluation
from virtex.training.best_checkpoint import best_value, logged_values

ITERATIONS, EVERY = 4, 2
SHORT = ("OPTIM.NUM_ITERATIONS", str(ITERATIONS), "OPTIM.BATCH_SIZE", "4")
SHORT += ("DATA.IMAGE_CROP_SIZE", "32")
FLAGS = ("--checkpoint-every", EVERY, "--keep-recent", 1)
METRIC = "evaluate/captioning/ROUGE_L"


@pytest.fixture(scope="module")
def plain(scenes, tmp_path_factory):
    """A run without evaluations."""
    directory = tmp_path_factory.mktemp("plain") / "run"
    assert scenes.pretrain(directory, *FLAGS, override=SHORT) == 0
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def settings(labelled):
    values = {
        "EVERY": EVERY,
        "PROTOCOLS": "[linear, captioning]",
        "DATA": labelled,
        "BEST": METRIC.removeprefix("evaluate/"),
    }
    pairs = [(f"EVALUATE.{name}", str(value)) for name, value in values.items()]
    return (*SHORT, *(word for pair in pairs for word in pair))


@pytest.fixture(scope="module")
def evaluated(scenes, settings, tmp_path_factory):
    """The same run with evaluations of features and captions."""
    directory = tmp_path_factory.mktemp("evaluated") / "run"
    assert scenes.pretrain(directory, *FLAGS, override=settings) == 0
    yield directory
    shutil.rmtree(directory)


def final(directory):
    """The last checkpoint, without the settings of evaluations."""
    state = checkpoint.load(checkpoint.checkpoint_path(directory, ITERATIONS))
    del state["config"]["EVALUATE"]
    return state


def best(directory):
    return checkpoint.load(directory / "checkpoint_best.pth")


def others(directory):
    """All scalars that a repeated run reproduces, but those of evaluations."""
    return [line for line in scalars(directory) if line not in scalars(directory, "evaluate/")]


def results(directory):
    """Values by iteration, protocol, metric and the hashes of weights and data."""
    records = json.loads((directory / "results.json").read_text(encoding="utf-8"))
    names = ("iteration", "protocol", "metric", "checkpoint", "data")
    return {tuple(record[name] for name in names): record["value"] for record in records}


def test_evaluations_change_no_bit_of_a_run(plain, evaluated):
    assert first_difference(final(evaluated), final(plain)) is None
    assert others(evaluated) == scalars(plain)
    found = scalars(evaluated, "evaluate/")
    assert [line["iteration"] for line in found] == [2, 4]
    assert list(found[0])[1:3] == ["evaluate/linear/top1", "evaluate/linear/balanced_accuracy"]


def test_the_best_checkpoint_is_that_of_the_best_value(evaluated):
    values = logged_values(evaluated / "scalars.jsonl", METRIC)
    highest = max(values, key=values.get)
    assert best(evaluated)["iteration"] == highest
    log = (evaluated / "log_rank0.txt").read_text(encoding="utf-8")
    assert (
        f"best captioning/ROUGE_L: {values[highest]:.2f} at iteration {highest}, checkpoint_" in log
    )
    lowest = best_value(evaluated / "scalars.jsonl", "val/loss", lower_is_better=True).iteration
    words = "lowest there too" if lowest == highest else f"lowest at iteration {lowest}"
    assert words in log
    names = [path.name for path in evaluated.glob("checkpoint_*.pth")]
    assert sorted(names) == ["checkpoint_4.pth", "checkpoint_best.pth"]


@pytest.mark.parametrize("protocol", ["linear", "captioning"])
def test_records_are_those_of_virtex_evaluate(scenes, labelled, evaluated, tmp_path, protocol):
    data = labelled if protocol == "linear" else scenes.root / "scenes"
    words = ["evaluate", protocol, "--data", data, "--checkpoint", evaluated / "checkpoint_4.pth"]
    words += ["--output", tmp_path / "results.json", "--cpu-workers", "0", "--quiet"]
    words += ["--cache-dir", tmp_path] if protocol == "linear" else []
    assert main([str(word) for word in words]) == 0
    found = results(evaluated).items()
    mine = {key: value for key, value in found if key[:2] == (ITERATIONS, protocol)}
    assert mine
    assert results(tmp_path) == mine


def test_a_run_that_is_stopped_in_an_evaluation_resumes_with_it(
    scenes, settings, evaluated, run, monkeypatch, capsys
):
    def interrupt(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return compute(*arguments)

    compute = evaluation.pooled_features
    monkeypatch.setattr(evaluation, "pooled_features", interrupt)
    assert scenes.pretrain(run, *FLAGS, override=settings) == 75
    assert "stopped by SIGTERM after iteration 2" in capsys.readouterr().out
    assert not scalars(run, "evaluate/")
    monkeypatch.undo()
    assert scenes.pretrain(run, *FLAGS, "--resume-from", "latest", override=settings) == 0
    assert scalars(run) == scalars(evaluated)
    assert first_difference(final(run), final(evaluated)) is None
    assert results(run) == results(evaluated)
    assert best(run)["iteration"] == best(evaluated)["iteration"]


def test_an_evaluation_that_fails_is_named_and_changes_nothing(
    scenes, settings, plain, run, monkeypatch, capsys
):
    """It draws random numbers too, as a library may."""

    def fail(*_):
        torch.rand(1), random.random(), np.random.seed(3)  # noqa: NPY002
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(evaluation, "pooled_features", fail)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert scenes.pretrain(run, *FLAGS, override=settings) == 0
    output = capsys.readouterr().out
    assert "evaluation after iteration 2 failed, and training continues without it" in output
    assert "RuntimeError: no such kernel" in output
    assert scalars(run) == scalars(plain)
    assert first_difference(final(run), final(plain)) is None
    assert states == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert not (run / "checkpoint_best.pth").exists()

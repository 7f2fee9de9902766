"""Runs whose length is given in epochs, and whose sizes are those of the data."""

import json
import shutil

import pytest
import torch
from tests.end_to_end.conftest import scalars

from virtex.checkpoints import file as checkpoint

LEFT_OUT = ("DATA.VOCAB_SIZE", "null", "MODEL.VISUAL.FEATURE_SIZE", "null")
EPOCHS = ("OPTIM.NUM_ITERATIONS", "null", "OPTIM.NUM_EPOCHS")
RESUME = ("--resume-from", "latest")


@pytest.fixture(scope="module")
def by_epochs(scenes, tmp_path_factory):
    """The reference's run, but by epochs and without sizes: 2.5 of 64 images, 8 at a time."""
    run = tmp_path_factory.mktemp("epochs") / "run"
    override = (*LEFT_OUT, *EPOCHS, "2.5")
    assert scenes.pretrain(run, "--checkpoint-every", 7, override=override) == 0
    yield run
    shutil.rmtree(run)


def test_a_run_by_epochs_is_that_of_as_many_iterations(by_epochs, reference):
    assert scalars(by_epochs) == scalars(reference)
    config = (by_epochs / "config.yaml").read_text()
    assert config == (reference / "config.yaml").read_text()
    one, other = (checkpoint.load(run / "checkpoint_20.pth") for run in (by_epochs, reference))
    assert one["config"] == other["config"]
    assert one["config"]["OPTIM"]["NUM_ITERATIONS"] == 20
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])


def test_epochs_and_samples_are_recorded(by_epochs):
    state = checkpoint.load(by_epochs / "checkpoint_14.pth")
    assert state["progress"] == {"samples_seen": 112, "epochs": 1.75, "num_epochs": 2.5}
    last = scalars(by_epochs, "speed/")[-1]
    assert (last["progress/samples_seen"], last["progress/epochs"]) == (160, 2.5)
    log = (by_epochs / "log_rank0.txt").read_text()
    assert "length: 20 iterations of 8 images, 2.50 epochs of 64 training images" in log
    assert "iteration 20/20  epoch 2.50  loss" in log


@pytest.fixture
def stopped(by_epochs, tmp_path):
    """The run as it was after 14 iterations."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "scalars.jsonl", "checkpoint_14.pth"):
        shutil.copy(by_epochs / name, run)
    return run


def test_a_run_by_epochs_resumes_to_the_same_end(scenes, stopped, by_epochs):
    override = (*LEFT_OUT, *EPOCHS, "2.5")
    assert scenes.pretrain(stopped, *RESUME, override=override) == 0
    ended = checkpoint.load(stopped / "checkpoint_20.pth")["model"]
    whole = checkpoint.load(by_epochs / "checkpoint_20.pth")["model"]
    assert all(torch.equal(ended[name], whole[name]) for name in whole)


def test_another_number_of_epochs_is_asked_for(scenes, stopped, tmp_path, capsys):
    longer = tmp_path / "longer.yaml"
    text = scenes.config.read_text().replace("NUM_ITERATIONS: 20", "NUM_EPOCHS: 2")
    longer.write_text(text)
    words = ["--config", longer]
    assert scenes.pretrain(stopped, *RESUME, *words) == 2
    assert "OPTIM.NUM_EPOCHS: was 2.5, is 2.0" in capsys.readouterr().err
    override = ("OPTIM.NUM_EPOCHS", "2")
    assert scenes.pretrain(stopped, *RESUME, *words, override=override) == 0
    assert "changed on request: OPTIM.NUM_EPOCHS, was 2.5" in capsys.readouterr().out
    state = checkpoint.load(stopped / "checkpoint_16.pth")
    assert state["progress"] == {"samples_seen": 128, "epochs": 2.0, "num_epochs": 2.0}


def test_changed_data_are_found_though_they_change_the_length(scenes, stopped, tmp_path, capsys):
    root = tmp_path / "other"
    shutil.copytree(scenes.root / "scenes", root)
    path = root / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text())
    gone = {image["id"] for image in content["images"][:20]}
    content["images"] = content["images"][20:]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] not in gone]
    path.write_text(json.dumps(content))
    override = (*EPOCHS, "2.5", "DATA.ROOT", root)
    assert scenes.pretrain(stopped, *RESUME, override=override) == 2
    assert "the data are not those that the checkpoint was" in capsys.readouterr().err
    assert scenes.pretrain(stopped, *RESUME, "--accept-changed-data", override=override) == 0
    printed = capsys.readouterr().out
    assert "OPTIM.NUM_EPOCHS 2.5 is 14 iterations here, was 20" in printed
    assert "all 14 iterations are done already; OPTIM.NUM_EPOCHS sets more" in printed

"""The export of a whole model: the directory is the checkpoint, but for its training."""

import json
import shutil

import pytest
import torch

import virtex
from virtex.checkpoints.exported import WEIGHTS, load_tensors, save_tensors
from virtex.checkpoints.model_directory import MODEL
from virtex.cli import main
from virtex.errors import UserError
from virtex.inference.pretrained import Pretrained


@pytest.fixture
def exported(captioning_model, tmp_path, capsys):
    words = ["export", "virtex", "--checkpoint", str(captioning_model)]
    assert main([*words, "--output", str(tmp_path / "export")]) == 0
    capsys.readouterr()
    return tmp_path / "export"


def test_its_captions_and_weights_are_those_of_the_checkpoint(exported, captioning_model, pictures):
    images = sorted(pictures.iterdir())
    one, other = Pretrained.from_pretrained(exported), virtex.load(captioning_model)
    assert one.caption(images) == other.caption(images)
    weights, expected = one.objective.state_dict(), other.objective.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


def test_every_command_takes_the_directory(exported, captioning_model, pictures, capsys):
    outputs = []
    for checkpoint in (exported, captioning_model):
        assert main(["caption", str(pictures), "--checkpoint", str(checkpoint)]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert main(["verify", str(exported)]) == 0
    words = ["--output", str(exported.parent / "f.npz"), "--cpu-workers", "0"]
    assert main(["embed", str(pictures), "--checkpoint", str(exported), *words]) == 0


def test_other_weights_are_found(exported):
    tensors = load_tensors(exported / WEIGHTS)
    other = {
        name: value + 0.01 if value.is_floating_point() else value
        for name, value in tensors.items()
    }
    save_tensors(exported / WEIGHTS, other, {"format": "pt"})
    assert main(["verify", str(exported)]) == 1
    save_tensors(exported / WEIGHTS, {"a": torch.zeros(1)}, {"format": "pt"})
    assert main(["verify", str(exported)]) in (1, 2)


def test_no_path_of_the_training_leaves_the_machine(exported, captioning_model):
    config = json.loads((exported / MODEL).read_text())["config"]
    expected = virtex.load(captioning_model).config.data
    assert expected.root == "datasets/coco"
    assert config["DATA"]["ROOT"] == "coco"
    assert "/" not in config["DATA"]["TOKENIZER_MODEL"]


def test_what_cannot_be_loaded_is_one_message(exported, tmp_path):
    (exported / MODEL).write_text("{}")
    with pytest.raises(UserError, match="another format"):
        virtex.load(exported)
    (exported / MODEL).write_text("no JSON")
    with pytest.raises(UserError, match="is not JSON"):
        virtex.load(exported)
    shutil.rmtree(exported)
    weights = tmp_path / "weights.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, weights)
    words = ["--checkpoint", str(weights), "--network", "torchvision::resnet18"]
    assert main(["export", "virtex", *words, "--output", str(exported)]) == 2
    with pytest.raises(UserError, match="not a directory here"):
        Pretrained.from_pretrained("no such/name of a repository")

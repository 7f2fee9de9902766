"""Each mistake ends with its own message and status 2, before work begins where that can be."""

import json
import os
import re
import shutil

import pytest
import torch
from tests.end_to_end.conftest import scalars

from virtex.cli import main

ONE_STEP = ("OPTIM.NUM_ITERATIONS", "1", "OPTIM.WARMUP_STEPS", "0")


@pytest.fixture
def refused(scenes, run, capsys):
    """A function that runs and gives the message of the error, which must not be a traceback."""

    def refused(*flags, override=(), directory=run, status=2):
        capsys.readouterr()
        assert scenes.pretrain(directory, *flags, override=override) == status
        message = capsys.readouterr().err
        assert message.startswith("virtex pretrain: error: ")
        assert "Traceback" not in message
        return message

    return refused


@pytest.fixture
def tree(scenes, tmp_path):
    """A copy of the scenes for a test to spoil, and the overrides that name it."""
    shutil.copytree(scenes.root / "scenes", tmp_path / "scenes")
    return tmp_path / "scenes", ("DATA.ROOT", tmp_path / "scenes")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (("OPTIM.WARMPU_STEPS", "5"), ["OPTIM.WARMPU_STEPS", "did you mean", "OPTIM.WARMUP_STEPS"]),
        (("OPTIM.BATCH_SIZE", "many"), ["OPTIM.BATCH_SIZE", "many"]),
        (("OPTIM.LR", "-0.1"), ["OPTIM.LR", "-0.1"]),
        (("OPTIM.WARMUP_STEPS", "20"), ["OPTIM.WARMUP_STEPS", "NUM_ITERATIONS", "shorter"]),
        (("MODEL.VISUAL.FEATURE_SIZE", "2048"), ["FEATURE_SIZE", "2048", "64"]),
        (("MODEL.VISUAL.NAME", "torchvision::resnet19"), ["resnet19", "resnet18"]),
        (
            ("MODEL.VISUAL.NAME", "torchvision::vit_b_32", "DATA.IMAGE_CROP_SIZE", "72"),
            ["72", "96"],
        ),
        (("MODEL.VISUAL.PRETRAINED", "/nowhere.pth"), ["VISUAL.PRETRAINED", "/nowhere.pth"]),
        (("DATA.ROOT", "/nowhere"), ["/nowhere"]),
        (("DATA.TOKENIZER_MODEL", "/nowhere.model"), ["/nowhere.model"]),
        (("DATA.VOCAB_SIZE", "120"), ["DATA.VOCAB_SIZE is 120", "but the file's is 110"]),
        (("OPTIM.BATCH_SIZE", "65"), ["OPTIM.BATCH_SIZE 65", "64 training images"]),
    ],
)
def test_a_wrong_setting_is_named(refused, run, override, named):
    message = refused(override=override)
    assert [word for word in named if word not in message] == []
    assert not run.exists()


def test_an_unknown_key_in_the_file_is_named_with_the_file(scenes, run, tmp_path, capsys):
    path = tmp_path / "mistaken.yaml"
    path.write_text(scenes.config.read_text(encoding="utf-8") + "  LEARNING_RATE: 1\n")
    assert main(["pretrain", "--config", str(path), "--serialization-dir", str(run)]) == 2
    message = capsys.readouterr().err
    assert "OPTIM.LEARNING_RATE" in message
    assert str(path) in message


def test_more_gpus_than_there_are(refused, run):
    wanted = torch.cuda.device_count() + 8
    override = ("OPTIM.BATCH_SIZE", wanted)
    message = refused("--num-gpus-per-machine", wanted, override=override)
    assert f"--num-gpus-per-machine {wanted}: this machine has {wanted - 8} GPUs" in message
    assert not run.exists()


def test_a_batch_that_does_not_divide_over_the_processes(refused, monkeypatch):
    torchrun = {"WORLD_SIZE": "3", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    message = refused()
    assert "'OPTIM.BATCH_SIZE' is 8" in message
    assert "choose 6 or 9" in message


def test_a_missing_image_is_named_before_training(refused, run, tree):
    root, override = tree
    missing = sorted((root / "train2017").iterdir())[3]
    missing.unlink()
    message = refused(override=override)
    assert f"1 of 64 image files are missing or empty: {missing}" in message
    assert "DATA.ON_BAD_IMAGE" in message
    assert not run.exists()


def test_an_empty_image_is_named_before_training(refused, run, tree):
    root, override = tree
    empty = sorted((root / "val2017").iterdir())[3]
    empty.write_bytes(b"")
    assert f"1 of 10 image files are missing or empty: {empty}" in refused(override=override)
    assert not run.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_image_is_named(refused, run, tree, workers):
    root, override = tree
    for path in (root / "train2017").iterdir():
        os.truncate(path, path.stat().st_size // 2)
    message = refused("--cpu-workers", workers, override=override)
    assert f"cannot read the image {root}/train2017/" in message
    assert message.splitlines()[0] in "\n".join(
        f"virtex pretrain: error: {line.split(' ERROR ')[-1]}"
        for line in (run / "log_rank0.txt").read_text(encoding="utf-8").splitlines()
    )


def test_bad_images_are_skipped_counted_and_named_on_request(scenes, run, tree, capsys):
    root, override = tree
    train = sorted((root / "train2017").iterdir())
    train[0].unlink()
    for path in train[1:30]:
        os.truncate(path, path.stat().st_size // 2)
    override += ("DATA.ON_BAD_IMAGE", "skip", *ONE_STEP)
    assert scenes.pretrain(run, "--cpu-workers", 1, override=override) == 0
    output = capsys.readouterr().out
    assert f"1 of 64 image files are missing or empty: {train[0]}" in output
    assert f"skipped cannot read the image {root}/train2017/" in output
    assert len(scalars(run, "train/")) == 1


def test_captions_without_an_image_are_named(refused, tree):
    root, override = tree
    path = root / "annotations" / "captions_train2017.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"].append({"id": 1, "image_id": 987654, "caption": "a lost caption"})
    path.write_text(json.dumps(content), encoding="utf-8")
    message = refused(override=override)
    assert "987654" in message
    assert "DATA.ON_BAD_IMAGE" in message


def test_a_run_is_not_overwritten(refused, reference):
    before = {path.name: path.stat().st_mtime_ns for path in reference.iterdir()}
    message = refused(directory=reference)
    assert "already holds a run" in message
    assert "--resume-from latest" in message
    assert {path.name: path.stat().st_mtime_ns for path in reference.iterdir()} == before


def test_a_directory_that_cannot_be_made_is_named(scenes, refused):
    message = refused(directory=scenes.config / "run", override=ONE_STEP, status=2)
    assert f"Not a directory: '{scenes.config / 'run'}'" in message


@pytest.mark.parametrize("flag", ["--resume-from", "--init-from"])
def test_a_missing_file_is_noticed_first(refused, flag):
    # Before the vocabulary, which is missing as well.
    override = ("DATA.TOKENIZER_MODEL", "/nowhere.model")
    message = refused(flag, "/no/checkpoint_5.pth", override=override)
    assert message == f"virtex pretrain: error: {flag} /no/checkpoint_5.pth: no such file\n"


def test_latest_where_there_is_no_run(refused, run):
    assert f"{run} contains no run" in refused("--resume-from", "latest")
    assert not run.exists()


def test_weights_alone_are_no_run(refused, reference, tmp_path):
    state = torch.load(reference / "checkpoint_7.pth", weights_only=True)
    torch.save(state["model"], tmp_path / "weights.pth")
    message = refused("--resume-from", tmp_path / "weights.pth")
    assert "--init-from" in message
    (tmp_path / "weights.pth").unlink()


def test_a_checkpoint_of_another_program_is_no_run(refused, tmp_path):
    torch.save({"iteration": 5, "model": {}, "optimizer": {}}, tmp_path / "foreign.pth")
    message = refused("--resume-from", tmp_path / "foreign.pth")
    assert "holds no scaler, config, tokenizer" in message
    assert "--init-from" in message


def test_resuming_into_the_directory_of_another_run_is_refused(refused, reference, copy):
    other = copy(7)
    message = refused("--resume-from", reference / "checkpoint_14.pth", directory=other)
    assert f"{other} already holds a run" in message


def test_an_address_without_a_port_is_refused(scenes, run, capsys):
    with pytest.raises(SystemExit) as caught:
        scenes.pretrain(run, "--dist-url", "tcp://somewhere")
    assert caught.value.code == 2
    assert "'tcp://somewhere' is not of the form tcp://HOST:PORT" in capsys.readouterr().err


def test_a_changed_file_is_refused_key_by_key(scenes, reference, tmp_path, capsys):
    text = scenes.config.read_text(encoding="utf-8")
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace("LR: 0.01", "LR: 0.03") + "  WEIGHT_DECAY: 0.1\n")
    words = ["--config", path, "--serialization-dir", reference, "--resume-from", "latest"]
    assert main(["pretrain", *map(str, words)]) == 2
    message = capsys.readouterr().err
    assert "OPTIM.LR: was 0.01, is 0.03" in message
    assert "OPTIM.WEIGHT_DECAY: was 0.0001, is 0.1" in message
    assert "--config-override" in message
    assert "BATCH_SIZE" not in message


@pytest.mark.parametrize(
    "override", [("OPTIM.OPTIMIZER_NAME", "adamw"), ("OPTIM.LOOKAHEAD.USE", "False")]
)
def test_another_optimizer_is_refused_even_when_asked_for(refused, reference, override):
    message = refused("--resume-from", "latest", override=override, directory=reference)
    assert f"{override[0]} cannot change in the middle of a run" in message
    assert "--init-from" in message


def test_another_vocabulary_of_the_same_size_is_refused(refused, reference, tmp_path):
    words = tmp_path / "words.txt"
    text = [f"{a}{b} {b}{a}{b} {a}" for a in "abcdefghijklm" for b in "nopqrstuvwxyz"]
    words.write_text("\n".join(text), encoding="utf-8")
    other = tmp_path / "other.model"
    assert main(["tokenizer", str(words), "--output", str(other), "--vocab-size", "110"]) == 0
    override = ("DATA.TOKENIZER_MODEL", other)
    message = refused("--resume-from", "latest", override=override, directory=reference)
    assert f"{other} is not the vocabulary" in message


def test_weights_of_another_shape_are_listed(refused, reference, run):
    override = ("MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H64_A2_F64")
    message = refused("--init-from", reference / "checkpoint_7.pth", override=override)
    assert "backward_textual.embedding.layer_norm.bias [32] instead of [64]" in message
    assert not run.exists()
    override = ("MODEL.NAME", "captioning")
    message = refused("--init-from", reference / "checkpoint_7.pth", override=override)
    assert re.search(r"unexpected keys \(\d+\): backward_textual\.", message)


def test_a_truncated_checkpoint_offers_the_one_before(refused, copy):
    run = copy(7, 14)
    os.truncate(run / "checkpoint_14.pth", 10_000_000)
    message = refused("--resume-from", run / "checkpoint_14.pth")
    assert "checkpoint_14.pth is truncated or damaged" in message
    assert f"--resume-from {run}/checkpoint_7.pth" in message

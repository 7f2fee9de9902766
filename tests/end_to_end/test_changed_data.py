"""A run resumes on the data that it was trained on, or not in silence."""

import json
import shutil

import pytest

from virtex.cli import main
from virtex.runtime import checkpoint

RESUME = ("--resume-from", "latest")
ONE_MORE = ("OPTIM.NUM_ITERATIONS", "15")
REFUSED = "the data are not those that the checkpoint was trained on"


@pytest.fixture
def other(scenes, tmp_path):
    """Settings for a copy of the scenes, and a function that changes captions of a split."""
    root = tmp_path / "other"
    shutil.copytree(scenes.root / "scenes", root)

    def change(split, *, lose=0, caption=None):
        path = root / "annotations" / f"captions_{split}2017.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["annotations"] = content["annotations"][lose:]
        if caption is not None:
            content["annotations"][0]["caption"] = caption
        path.write_text(json.dumps(content), encoding="utf-8")

    return ("DATA.ROOT", root, *ONE_MORE), change


def test_changed_captions_are_refused_unless_accepted(scenes, copy, other, capsys):
    run = copy(14)
    override, change = other
    change("train", lose=1)
    change("val", caption="a new caption")
    before = sorted(path.name for path in run.iterdir())
    assert scenes.pretrain(run, *RESUME, override=override) == 2
    message = capsys.readouterr().err
    assert message.count(REFUSED) == 1
    assert "training: was 64 images with 320 captions, is 64 images with 319 captions" in message
    assert "validation: was 10 images with 50 captions, is 10" in message
    assert "--accept-changed-data" in message
    assert sorted(path.name for path in run.iterdir() if path.name != ".lock") == before

    assert scenes.pretrain(run, *RESUME, "--accept-changed-data", override=override) == 0
    log = (run / "log_rank0.txt").read_text(encoding="utf-8")
    assert "WARNING accepted by --accept-changed-data: training: was 64 images" in log
    # The new content is what the next one compares with.
    again = ("OPTIM.NUM_ITERATIONS", "16", *override[:2])
    assert scenes.pretrain(run, *RESUME, override=again) == 0


def test_a_moved_root_and_shards_are_no_change(scenes, copy, other, tmp_path, capsys):
    run = copy(14)
    override, _ = other
    shards = tmp_path / "shards"
    words = ["pack", "--from", "coco", str(override[1]), str(shards), "--samples-per-shard"]
    assert main([*words, "10", "--workers", "1"]) == 0
    packed = ("DATA.FORMAT", "shards", "DATA.ROOT", shards)
    assert scenes.pretrain(run, *RESUME, override=override) == 0
    assert "WARNING" not in (run / "log_rank0.txt").read_text(encoding="utf-8")
    more = ("OPTIM.NUM_ITERATIONS", "16")
    assert scenes.pretrain(run, *RESUME, override=(*packed, *more)) == 0
    assert "WARNING" not in (run / "log_rank0.txt").read_text(encoding="utf-8")

    shutil.rmtree(shards)
    assert main([*words, "20", "--workers", "1"]) == 0
    window = ("DATA.SHUFFLE_WINDOW", "20", "OPTIM.NUM_ITERATIONS", "17")
    assert scenes.pretrain(run, *RESUME, override=(*packed, *window)) == 0
    assert "but their order in training changes here" in capsys.readouterr().out


def test_a_checkpoint_without_fingerprints_goes_on_with_a_warning(scenes, copy, other, capsys):
    run = copy(14)
    path = checkpoint.checkpoint_path(run, 14)
    state = checkpoint.load(path)
    del state["data"]
    checkpoint.save(path, state)
    override, change = other
    change("train", lose=1)
    assert scenes.pretrain(run, *RESUME, override=override) == 0
    assert "the checkpoint holds no fingerprints of its data" in capsys.readouterr().out


def test_three_processes_refuse_changed_data_once(scenes, copy, other):
    run = copy(14)
    override, change = other
    change("train", lose=1)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3")
    program = (*torchrun, "-m", "virtex", "pretrain")
    batch = ("OPTIM.BATCH_SIZE", "6")
    process = scenes.start(run, *RESUME, program=program, override=(*override, *batch))
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode != 0
    assert errors.count(REFUSED) == 1

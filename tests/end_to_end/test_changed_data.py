"""A run resumes on the data that it was trained on, or not in silence."""

import json
import shutil

import pytest
from tests.end_to_end.test_launch import free_port

from virtex.checkpoints import file as checkpoint
from virtex.cli import main

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


def warnings(run):
    """The warnings in the log, without those of a model that has hardly learnt."""
    lines = (run / "log_rank0.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if "WARNING" in line and "captions are distinct" not in line]


def test_a_moved_root_and_shards_are_no_change(scenes, copy, other, tmp_path, capsys):
    run = copy(14)
    override, _ = other
    shards = tmp_path / "shards"
    words = ["pack", "--from", "coco", str(override[1]), str(shards), "--samples-per-shard"]
    assert main([*words, "10", "--workers", "1"]) == 0
    packed = ("DATA.FORMAT", "shards", "DATA.ROOT", shards)
    assert scenes.pretrain(run, *RESUME, override=override) == 0
    assert not warnings(run)
    more = ("OPTIM.NUM_ITERATIONS", "16")
    assert scenes.pretrain(run, *RESUME, override=(*packed, *more)) == 0
    assert not warnings(run)

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


def test_three_processes_refuse_changed_data_once(scenes, copy, other, monkeypatch):
    run = copy(14)
    override, change = other
    change("train", lose=1)
    # The environment of srun's tasks.
    for name, value in (("JOB_ID", free_port()), ("STEP_ID", 0), ("STEP_NUM_TASKS", 3)):
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    tasks = []
    for rank in "012":
        monkeypatch.setenv("SLURM_PROCID", rank)
        monkeypatch.setenv("SLURM_LOCALID", rank)
        tasks.append(scenes.start(run, *RESUME, override=(*override, "OPTIM.BATCH_SIZE", "6")))
    try:
        errors = [task.communicate(timeout=120)[1] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
            task.communicate()
    assert [task.returncode for task in tasks] == [2, 2, 2], errors
    assert [text.count(REFUSED) for text in errors] == [1, 0, 0]


def test_an_agent_does_not_start_a_refused_run_again(scenes, copy, other):
    run = copy(14)
    override, change = other
    change("train", lose=1)
    words = ("--num-machines", 2, "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    agents = [
        scenes.start(
            *(run, *RESUME, *words, "--max-restarts", 1, "--machine-rank", rank),
            override=override,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [agent.communicate(timeout=120)[1] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()
    assert [agent.returncode for agent in agents] == [2, 2], errors
    assert [text.count(REFUSED) for text in errors] == [1, 0]

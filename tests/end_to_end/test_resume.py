"""A run that is interrupted, however, ends in the same bits as one that is not."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tests.end_to_end.conftest import EVERY, ITERATIONS, logged, scalars, wait_for
from tests.published import ENCODERS, older_names
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint

SCRIPT = Path(__file__).parents[2] / "scripts" / "pretrain_virtex.py"


def final(directory):
    return checkpoint.load(checkpoint.checkpoint_path(directory, ITERATIONS))


def test_a_run_leaves_what_is_promised(reference):
    names = {path.name for path in reference.iterdir() if "tfevents" not in path.name}
    saved = {f"checkpoint_{iteration}.pth" for iteration in (7, 14, 20)}
    assert names == {"config.yaml", "log_rank0.txt", "scalars.jsonl", ".lock", *saved}
    assert len(list(reference.glob("events.out.tfevents.*"))) == 1
    assert [line["iteration"] for line in scalars(reference, "train/")] == list(range(1, 21))
    assert [line["iteration"] for line in scalars(reference, "val/")] == [7, 14, 20]


def test_it_learns(reference):
    losses = [line["train/loss"] for line in scalars(reference, "train/")]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def test_a_checkpoint_is_complete(reference):
    state = final(reference)
    assert list(state) == [
        *("model", "optimizer", "scaler", "iteration", "validated", "progress", "untouched"),
        *("config", "tokenizer", "categories", "data", "versions"),
    ]
    optimizer = state["optimizer"]
    assert list(optimizer) == ["optimizer", "slow", "counter"]
    assert optimizer["counter"] == ITERATIONS % 5
    groups = optimizer["optimizer"]["param_groups"]
    parameters = sum(len(group["params"]) for group in groups)
    assert len(optimizer["slow"]) == parameters
    assert [len(optimizer["optimizer"]["state"][i]) for i in range(parameters)] == [1] * parameters


def test_resume_after_kill_9_equals_uninterrupted(scenes, reference, run):
    flags = ("--checkpoint-every", EVERY, "--cpu-workers", 2)
    process = scenes.start(run, *flags, program=(SCRIPT,))
    wait_for(lambda: logged(run) > EVERY, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert EVERY < logged(run) < ITERATIONS
    (run / ".checkpoint_14.pth.partial").write_bytes(b"half")

    assert scenes.pretrain(run, *flags, "--resume-from", "latest") == 0
    assert first_difference(final(run), final(reference)) is None
    assert scalars(run) == scalars(reference)
    assert [path.name for path in run.glob(".*")] == [".lock"]


def test_latest_passes_over_a_damaged_checkpoint_and_says_so(scenes, reference, copy, capsys):
    run = copy(7, 14)
    os.truncate(run / "checkpoint_14.pth", 10_000_000)
    assert scenes.pretrain(run, "--checkpoint-every", EVERY, "--resume-from", "latest") == 0
    output = capsys.readouterr().out
    assert "checkpoint_14.pth is damaged; the previous one is used" in output
    assert "checkpoint_7.pth, iteration 7" in output
    # Also without workers, which the reference had.
    assert first_difference(final(run), final(reference)) is None
    assert scalars(run) == scalars(reference)


def test_a_finished_run_resumes_to_nothing(scenes, reference, copy, capsys):
    run = copy(20)
    assert scenes.pretrain(run, "--resume-from", str(run / "checkpoint_20.pth")) == 0
    assert "loss" not in capsys.readouterr().out
    assert scalars(run) == scalars(reference)


def test_keep_recent_keeps_the_newest(scenes, copy):
    run = copy(7, 14)
    flags = ("--checkpoint-every", 3, "--keep-recent", 2, "--resume-from", "latest")
    assert scenes.pretrain(run, *flags) == 0
    assert [path.name for path in checkpoint.checkpoints(run)] == [
        *("checkpoint_18.pth", "checkpoint_20.pth")
    ]


def test_by_default_the_three_newest_are_kept(scenes, copy, capsys):
    run = copy(7, 14)
    override = ("OPTIM.NUM_ITERATIONS", "16")
    flags = ("--checkpoint-every", 1, "--resume-from", "latest")
    assert scenes.pretrain(run, *flags, override=override) == 0
    kept = [checkpoint.checkpoint_iteration(path) for path in checkpoint.checkpoints(run)]
    assert kept == [14, 15, 16]
    assert "checkpoints: the newest 3 are kept, one every 25,000" in capsys.readouterr().out


def test_a_changed_setting_goes_on_when_it_is_asked_for(scenes, copy, capsys):
    run = copy(14)
    override = ("OPTIM.LR", "0.02", "OPTIM.NUM_ITERATIONS", "16")
    assert scenes.pretrain(run, "--resume-from", "latest", override=override) == 0
    output = capsys.readouterr().out
    assert "changed on request: OPTIM.LR, was 0.01" in output
    assert "changed on request: OPTIM.NUM_ITERATIONS, was 20" in output
    (line,) = [line for line in scalars(run, "train/") if line["iteration"] == 15]
    # The schedule multiplies the new rate: cosine after 14 of 16 steps, 3 of them warm-up.
    expected = 0.02 * 0.5 * (1 + torch.cos(torch.tensor(11 / 13 * torch.pi, dtype=torch.float64)))
    assert line["learning_rate/textual_decayed"] == pytest.approx(float(expected), rel=1e-12)


def test_init_from_takes_the_weights_alone(scenes, reference, run):
    override = ("OPTIM.NUM_ITERATIONS", "1", "OPTIM.WARMUP_STEPS", "0", "OPTIM.LR", "0")
    override += ("OPTIM.CNN_LR", "0")
    path = reference / "checkpoint_14.pth"
    assert scenes.pretrain(run, "--init-from", path, override=override) == 0
    state = checkpoint.load(run / "checkpoint_1.pth")
    before = checkpoint.load(path)["model"]
    changed = {name for name in before if not torch.equal(before[name], state["model"][name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {
        *("running_mean", "running_var", "num_batches_tracked")
    }
    assert (state["iteration"], state["optimizer"]["counter"]) == (1, 1)


def test_published_weights_begin_a_run_as_our_own_do(scenes, reference, run, tmp_path):
    override = ("OPTIM.NUM_ITERATIONS", "1", "OPTIM.WARMUP_STEPS", "0")
    ours = reference / "checkpoint_14.pth"
    assert scenes.pretrain(run, "--init-from", ours, override=override) == 0
    for number, encoder in enumerate(ENCODERS):
        theirs = tmp_path / f"published_{number}.pth"
        older = older_names(checkpoint.load(ours)["model"], encoder)
        torch.save({"model": older, "iteration": 14, "optimizer": {}}, theirs)
        other = tmp_path / f"run_{number}"
        assert scenes.pretrain(other, "--init-from", theirs, override=override) == 0
        assert len(scalars(other, "train/")) == 1
        assert scalars(other) == scalars(run)
        theirs.unlink()
        shutil.rmtree(other)


def test_a_run_with_given_weights_that_ends_early_goes_on_from_them(scenes, reference, run):
    override = ("OPTIM.NUM_ITERATIONS", "7")
    start = ("--init-from", reference / "checkpoint_20.pth")
    assert scenes.pretrain(run, *start, override=override) == 0
    whole = checkpoint.load(checkpoint.checkpoint_path(run, 7))
    given = checkpoint.load(checkpoint.checkpoint_path(run, 0))
    assert first_difference(given["model"], final(reference)["model"]) is None
    checkpoint.checkpoint_path(run, 7).unlink()  # as if it had been killed before
    assert scenes.pretrain(run, "--resume-from", "latest", override=override) == 0
    again = checkpoint.load(checkpoint.checkpoint_path(run, 7))
    assert first_difference(again, whole) is None

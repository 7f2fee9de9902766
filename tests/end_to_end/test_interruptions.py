"""What happens to a run from outside: signals, lost workers, divergence."""

import gc
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from tests.end_to_end.conftest import logged, wait_for

from virtex.checkpoints import file as checkpoint

PROCESSES = Path("/proc")
ENDLESS = ("OPTIM.NUM_ITERATIONS", "100000")


def members(group):
    """The processes of a group that are still there, zombies left out."""
    found = []
    for entry in PROCESSES.glob("[0-9]*"):
        try:
            text = (entry / "stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        state, _, its_group = text.rsplit(")", 1)[1].split()[:3]
        if its_group == str(group) and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.skipif(not PROCESSES.is_dir(), reason="there is no list of processes")
def test_ctrl_c_ends_the_run_and_its_workers(scenes, run):
    process = scenes.start(run, "--cpu-workers", 2, override=ENDLESS)
    try:
        wait_for(lambda: logged(run) > 2, process)
        assert len(members(process.pid)) >= 3
        # As a terminal does: to the whole group.
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert errors.strip() == "interrupted"
        deadline = time.monotonic() + 5
        while members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not members(process.pid)
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_killed_worker_ends_the_run(scenes, run, capsys):
    def kill_a_worker():
        deadline = time.monotonic() + 60
        while logged(run) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    assert scenes.pretrain(run, "--cpu-workers", 2, override=ENDLESS) == 1
    killer.join()
    errors = capsys.readouterr().err
    assert "virtex pretrain: error: loading the data failed: DataLoader worker" in errors
    assert "--cpu-workers" in errors
    assert "loading the data failed" in (run / "log_rank0.txt").read_text(encoding="utf-8")
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        gc.collect()  # the other worker ends with the iterator, which the error's frames held
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_divergence_stops_the_run_and_saves_nothing_bad(scenes, run, capsys):
    override = ("OPTIM.CNN_LR", "1e30", "OPTIM.LR", "1e30", "OPTIM.MAX_NONFINITE_STEPS", "2")
    flags = ("--checkpoint-every", 1, "--keep-recent", 2)
    assert scenes.pretrain(run, *flags, override=override) == 1
    errors = capsys.readouterr().err
    assert "training diverged" in errors
    assert "OPTIM.CNN_LR" in errors
    assert "Traceback" not in errors
    saved = checkpoint.checkpoints(run)
    # The first step has a rate of 0; the second ends in weights without a finite gradient.
    assert [path.name for path in saved] == ["checkpoint_1.pth", "checkpoint_2.pth"]
    for path in saved:
        weights = checkpoint.load(path)["model"]
        assert all(bool(value.isfinite().all()) for value in weights.values())

"""A sweep's runs: each in its turn or as a task of a script, failed, begun and finished ones."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from tests.end_to_end.conftest import KNOWN, logged, scalars, wait_for
from tests.end_to_end.test_interruptions import ENDLESS, PROCESSES, members
from tests.small import assert_same

from virtex.checkpoints import file as checkpoint
from virtex.cli import main

SHORT = ("OPTIM.NUM_ITERATIONS", "2", "OPTIM.WARMUP_STEPS", "1")
HALF = "percentage_50_seed_7"


def arguments(scenes, directory, *more, percentages=("50",), seed="7", override=()):
    """What follows `virtex`."""
    given = ["--config", scenes.config, "--directory", directory]
    given += ["--percentages", *percentages, "--seeds", seed, "--config-override", *override]
    return ["sweep", *map(str, given), *more]


@pytest.fixture
def directory(tmp_path):
    path = tmp_path / "a sweep's runs"
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_run_that_fails_does_not_keep_the_others_from_theirs(scenes, directory, capfd):
    # 1 % of 64 images is none.
    both = arguments(scenes, directory, percentages=("1", "50"), override=SHORT)
    assert main(both) == 1
    output, errors = capfd.readouterr()
    table = [line.split(maxsplit=1) for line in output.splitlines()[-2:]]
    assert table == [["percentage_1_seed_7", "failed: status 2"], [HALF, "done"]]
    assert "training: 32 of 64 images" in output
    assert "DATA.USE_PERCENTAGE is 1.0, which of 64 training images is 0.64" in errors
    assert "virtex sweep: error: 1 of 2 runs failed" in errors

    assert main(arguments(scenes, directory, override=SHORT)) == 0
    output = capfd.readouterr().out
    assert "virtex pretrain" not in output
    assert f"{HALF}  already done" in output


def test_a_task_of_the_script_goes_on_with_its_run(scenes, directory, tmp_path):
    short, whole = (*KNOWN, "OPTIM.NUM_ITERATIONS", "4"), tmp_path / "whole"
    assert scenes.pretrain(whole, "--checkpoint-every", 2, override=short) == 0
    run = directory / "percentage_100_seed_0"
    run.mkdir(parents=True)
    for name in ("config.yaml", "scalars.jsonl", "checkpoint_2.pth"):
        shutil.copy(whole / name, run)
    script = tmp_path / "sweep.sh"
    flags = ("--slurm", str(script), "--", "--log-every", "1")
    given = arguments(
        scenes, directory, *flags, percentages=("50", "100"), seed="0", override=short
    )
    assert main(given) == 0
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # as the reference had
    environment = {**os.environ, **threads, "SLURM_ARRAY_TASK_ID": "1"}
    subprocess.run(["bash", str(script)], check=True, env=environment, cwd=tmp_path)
    ours, theirs = (checkpoint.load(path / "checkpoint_4.pth") for path in (run, whole))
    assert_same(ours["model"], theirs["model"])
    assert scalars(run, "train/") == scalars(whole, "train/")
    assert [path.name for path in directory.iterdir() if path.is_dir()] == [run.name]


@pytest.mark.skipif(not PROCESSES.is_dir(), reason="there is no list of processes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sweep_and_its_run(scenes, directory, number):
    given = arguments(scenes, directory, "--", "--log-every", "1", override=ENDLESS)
    process = subprocess.Popen(
        [sys.executable, "-m", "virtex", *given],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: logged(directory / HALF) > 0, process)
        # To the sweep alone: the harder case, as a terminal tells the run as well.
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 130
        assert errors.splitlines()[-1] == "interrupted"
        assert not members(process.pid)
    finally:
        if members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)

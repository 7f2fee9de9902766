"""`virtex slurm` without a cluster: submitit's jobs on this machine run the real training."""

import subprocess
from pathlib import Path

import pytest
from tests.end_to_end.conftest import logged

from virtex.checkpoints import file as checkpoint
from virtex.cli import main

SHORT = ["OPTIM.NUM_ITERATIONS", 4]


def slurm(*flags, run):
    return main(["slurm", "--time", "5", *flags, "--", *run])


def test_processes_of_a_local_job_train_one_run(scenes, run, capsys):
    words = scenes.arguments(run, override=SHORT)
    assert slurm("--cluster", "local", "--tasks-per-node", "2", run=words) == 0
    assert checkpoint.checkpoint_path(run, 4).exists()
    assert logged(run) == 4
    assert "2 process(es)" in (run / "log_rank0.txt").read_text()
    assert str(run / "slurm") in capsys.readouterr().out


def test_a_failed_run_gives_its_status_and_log(scenes, run, capsys):
    words = scenes.arguments(run, override=["DATA.VOCAB_SIZE", "109"])
    assert slurm("--cluster", "local", run=words) == 2
    assert "DATA.VOCAB_SIZE" in capsys.readouterr().err
    assert not run.exists()
    assert slurm("--cluster", "local", "--no-data-check", run=words) == 2
    log = capsys.readouterr().err.split("see ")[1].strip()
    assert "DATA.VOCAB_SIZE" in Path(log).read_text()


# submitit does not close the logs of a job in its own process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_in_this_process_is_the_run_itself(scenes, run):
    assert slurm("--cluster", "debug", run=scenes.arguments(run, override=SHORT)) == 0
    assert checkpoint.checkpoint_path(run, 4).exists()


def test_the_script_of_a_dry_run_works_as_it_stands(scenes, run, capsys, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    # What srun does for a job of one process: flags with values in two words come first.
    srun = 'shift; shift 2; shift 2\nwhile case "$1" in --*) true;; *) false;; esac; do shift; done'
    (programs / "srun").write_text(f'#!/bin/sh\n{srun}\nexec "$@"\n')
    (programs / "srun").chmod(0o755)
    # A network that programs know that no test has started.
    network = ["MODEL.VISUAL.NAME", "torchvision::resnet18", "MODEL.VISUAL.FEATURE_SIZE", 512]
    words = scenes.arguments(run, override=[*SHORT, *network])
    setup = ("--setup", f"export PATH={programs}:$PATH")
    assert slurm("--dry-run", *setup, run=words) == 0
    script = tmp_path / "job.sh"
    script.write_text(capsys.readouterr().out)
    assert not run.exists()
    job = {"JOB_ID": "77", "NTASKS": "1", "JOB_NUM_NODES": "1", "NODEID": "0", "PROCID": "0"}
    job |= {"LOCALID": "0", "JOB_NODELIST": "localhost", "NNODES": "1", "STEP_NUM_TASKS": "1"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkpoint.checkpoint_path(run, 4).exists()
    assert (run / "slurm" / "77_submitted.pkl").exists()

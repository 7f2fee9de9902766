"""What `virtex slurm` refuses and what it hands to sbatch; jobs that run: tests/end_to_end."""

import os
import pickle
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from virtex.cli import main

RUN = ("--config", "a.yaml", "--cpu-workers", "3")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A function of the arguments before and after the `--` of `virtex slurm`."""
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text("OPTIM: {BATCH_SIZE: 64}")

    def slurm(*arguments, run=RUN):
        return main(["slurm", "--time", "60", "--no-data-check", *arguments, "--", *run])

    return slurm


@pytest.fixture(autouse=True)
def cluster(tmp_path, monkeypatch):
    """Programs by the names of SLURM's; sbatch takes every script but that of a wrong account."""
    programs = tmp_path / "bin"
    programs.mkdir()
    sbatch = 'grep -q account=wrong "$1" && { echo "invalid account" >&2; exit 1; }\n'
    for name, text in {"srun": "", "sbatch": f"{sbatch}echo Submitted batch job 4321"}.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")


def test_the_script_asks_for_a_process_for_each_gpu(slurm, capsys):
    assert slurm("--dry-run", "--nodes", "2", "--gpus-per-node", "8", "--partition", "a b") == 0
    script = capsys.readouterr().out
    wanted = ["nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=4", "time=60"]
    for flag in [*wanted, "signal=USR2@120", "requeue", "partition='a b'", "job-name=virtex"]:
        assert f"#SBATCH --{flag}\n" in script
    folder = re.escape(str(Path("runs/a/slurm").absolute()))
    command = script.splitlines()[-1]
    assert re.match(f"srun .*--output {folder}/%j_%t_log.out --error .*", command)
    assert "--cpus-per-task=4 --kill-on-bad-exit=1" in command
    assert not Path("runs").exists()
    assert subprocess.run(["bash", "-n"], check=False, input=script, text=True).returncode == 0


def test_what_is_submitted_asks_for_what_a_dry_run_shows(slurm, capsys):
    flags = ["--gpus-per-node", "4", "--folder", "logs", "--comment", "a 'b'"]
    flags += ["--setup", "module load cuda", "--setup", "umask 2", "--exclude", "node[1-3]"]
    flags += ["--reservation", "mine", "--mail-type", "END,FAIL", "--mail-user", "me@there"]
    assert slurm("--dry-run", *flags) == 0
    shown = capsys.readouterr().out
    assert slurm(*flags) == 0
    submitted = Path("logs/4321_submission.sh").read_text()

    def requests(script):
        lines = [line for line in script.splitlines() if line.startswith("#SBATCH")]
        here = ("--output", "--error", "--chdir")
        return [line for line in lines if not line.split()[1].startswith(here)]

    assert requests(shown) == requests(submitted)
    for line in (
        *("#SBATCH --exclude='node[1-3]'", "#SBATCH --reservation=mine"),
        *("#SBATCH --mail-type=END,FAIL", "#SBATCH --mail-user=me@there"),
        "module load cuda\numask 2\n",
    ):
        assert line in submitted
    assert "module load cuda\numask 2\nmkdir -p " in shown
    commands = [script.splitlines()[-1] for script in (shown, submitted)]
    assert commands[0] == commands[1]
    printed = capsys.readouterr().out
    assert "job 4321 is queued; nodes: 1, processes per node: 4" in printed
    assert "run directory: runs/a\n" in printed
    assert f"tail -F {Path('logs').absolute()}/4321_0_log.out" in printed
    assert "scancel 4321" in printed


def test_gpus_by_type_replace_those_by_number(slurm, capsys):
    assert slurm("--dry-run", "--gpus-per-node", "4", "--gres", "gpu:a100:4") == 0
    script = capsys.readouterr().out
    assert "#SBATCH --gres=gpu:a100:4\n" in script
    assert "gpus-per-node" not in script
    assert "#SBATCH --ntasks-per-node=4\n" in script


def test_the_vocabulary_is_opened_before_anything_is_queued(slurm, capsys):
    missing = ("--config-override", "DATA.TOKENIZER_MODEL", "none.model")
    assert main(["slurm", "--time", "60", "--dry-run", "--", *RUN, *missing]) == 2
    assert "none.model" in capsys.readouterr().err
    assert slurm("--dry-run", run=(*RUN, *missing)) == 0


def test_a_turn_after_the_first_goes_on_from_the_latest_checkpoint(slurm):
    Path("other.pth").touch()
    given = ["--init-from=other.pth", "--init-parts", "backbone"]
    run = [*given, *RUN, "--config-override", "OPTIM.LR", "1e-4"]
    assert slurm("--gpus-per-node", "2", "--turns", "7", run=run) == 0
    submitted = pickle.loads(Path("runs/a/slurm/4321_submitted.pkl").read_bytes())
    task = submitted.function
    python = (sys.executable, "-m", "virtex", "pretrain")
    assert task.first == (*python, *run, "--num-gpus-per-machine", "2")
    assert task.again == (
        *(*python, *run[len(given) :], "--num-gpus-per-machine", "2"),
        *("--resume-from", "latest"),
    )
    assert task.begun == str(Path("runs/a/config.yaml").absolute())
    assert submitted._timeout_countdown == 6


def test_the_pickle_holds_nothing_that_must_be_built(slurm):
    assert slurm() == 0
    names = set(re.findall(rb"virtex[.\w]*", Path("runs/a/slurm/4321_submitted.pkl").read_bytes()))
    assert {name for name in names if b"." in name} == {b"virtex.experiments.slurm_task"}


@pytest.mark.parametrize(
    ("arguments", "run", "message"),
    [
        ((), ("--config", "b.yaml"), "b.yaml"),
        ((), (*RUN, "--config-override", "OPTIM.LRR", "1"), "did you mean 'OPTIM.LR'"),
        (("--gpus-per-node", "3"), RUN, "64 over all processes, which is not divisible by 3"),
        (("--nodes", "2", "--tasks-per-node", "3"), RUN, "is not divisible by 6 processes"),
        ((), (*RUN, "--num-machines", "2"), "--num-machines after -- is not allowed, as"),
        ((), (*RUN, "--num-gpus-per-machine", "2"), "--num-gpus-per-machine after --"),
        ((), (*RUN, "--resume-from", "latest"), "runs/a contains no run"),
        ((), (*RUN, "--resume-from", "x.pth"), "--resume-from x.pth: no such file"),
        ((), (*RUN, "--init-from", "x.pth"), "--init-from x.pth: no such file"),
        ((), (*RUN, "--serialization-dir", "old"), "old already holds a run"),
        (("--gpus-per-node", "2", "--tasks-per-node", "2"), RUN, "--tasks-per-node 2: with"),
        (("--notice", "3600"), RUN, "--notice 3600: the notice must be shorter than --time 60"),
        (("--folder", "a.yaml"), RUN, "a.yaml is a file"),
        (("--cluster", "local", "--nodes", "2"), RUN, "--nodes 2: --cluster local"),
        (("--cluster", "debug", "--tasks-per-node", "2"), RUN, "runs a single process, not 2"),
    ],
)
def test_a_mistake_is_told_before_anything_is_queued(slurm, capsys, arguments, run, message):
    Path("old").mkdir()
    Path("old/config.yaml").touch()
    assert slurm(*arguments, run=run) == 2
    error = capsys.readouterr().err
    assert error.startswith("virtex slurm: error: ")
    assert message in error
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "run", "message"),
    [
        ((), (*RUN, "--cpu-workers", "x"), "virtex pretrain: error: argument --cpu-workers: 'x'"),
        ((), ("--cpu-workers", "1"), "virtex pretrain: error: the following arguments"),
        (("--comment", "a\nb"), RUN, "'a\\nb' is not one line"),
        (("--nodes", "0"), RUN, "--nodes: '0' is not an integer of at least 1"),
        (("--dry-run", "--cluster", "local"), RUN, "not allowed with argument"),
    ],
)
def test_a_wrong_word_is_told_with_the_usage(slurm, capsys, arguments, run, message):
    with pytest.raises(SystemExit) as caught:
        slurm(*arguments, run=run)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_machine_without_slurm_is_told_of_what_it_can_do(slurm, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    assert slurm() == 2
    error = capsys.readouterr().err
    assert "sbatch is not installed on this machine" in error
    assert "--cluster local" in error
    assert not Path("runs").exists()


def test_what_sbatch_says_is_passed_on(slurm, capsys):
    assert slurm("--account", "wrong") == 1
    assert "sbatch rejected the job: invalid account" in capsys.readouterr().err


def test_without_submitit_the_error_names_what_to_install(slurm, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert slurm("--dry-run") == 2
    assert "pip install 'virtex-pretraining[slurm]'" in capsys.readouterr().err

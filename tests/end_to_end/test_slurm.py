"""`virtex slurm` without a cluster: submitit's jobs on this machine run the real training."""

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
    log = capsys.readouterr().err.split("see ")[1].strip()
    assert "DATA.VOCAB_SIZE" in Path(log).read_text()


# submitit does not close the logs of a job in its own process.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_job_in_this_process_is_the_run_itself(scenes, run):
    assert slurm("--cluster", "debug", run=scenes.arguments(run, override=SHORT)) == 0
    assert checkpoint.checkpoint_path(run, 4).exists()

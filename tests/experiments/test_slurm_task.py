"""Whether a job continues after its processes have ended: small programs in place of training."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from submitit import LocalExecutor
from submitit.core.utils import UncompletedJobError

from virtex.experiments.slurm_task import STOPPED, PretrainTask

WAIT_FOR_SIGTERM = """
import os, pathlib, signal, sys, time
task = os.environ["SUBMITIT_LOCAL_GLOBALID"]
def stop(*_):
    pathlib.Path(f"stopped{{task}}").touch()
    time.sleep(0.5)  # a second signal would end it here
    sys.exit({status})
signal.signal(signal.SIGTERM, stop)
pathlib.Path(f"parent{{task}}.partial").write_text(str(os.getppid()))
os.rename(f"parent{{task}}.partial", f"parent{{task}}")
time.sleep(60)
"""


def python(code):
    return (sys.executable, "-c", code)


def waits(status=STOPPED):
    return python(WAIT_FOR_SIGTERM.format(status=status))


def exits(status, note="again"):
    return python(f"import pathlib, sys; pathlib.Path({note!r}).touch(); sys.exit({status})")


def submit(task, processes=1, turns=2):
    executor = LocalExecutor("logs", max_num_timeout=turns - 1)
    executor.update_parameters(timeout_min=2, tasks_per_node=processes, signal_delay_s=1)
    return executor.submit(task)


def interrupt(*signals, task=0):
    """Send signals to a task of the job as soon as its command runs."""
    told = Path(f"parent{task}")
    deadline = time.monotonic() + 60
    while not told.exists():
        assert time.monotonic() < deadline, f"waited for task {task} in vain"
        time.sleep(0.02)
    for number in signals:
        os.kill(int(told.read_text()), number)


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "signals", [[signal.SIGUSR2], [signal.SIGTERM, signal.SIGUSR2], [signal.SIGUSR2] * 2]
)
def test_a_run_that_was_stopped_and_saved_is_resumed(signals):
    job = submit(PretrainTask(first=waits(), again=exits(0), begun="stopped0"))
    interrupt(*signals)
    assert job.results() == [0]
    assert Path("again").exists()


def test_all_processes_of_a_run_go_on_together():
    job = submit(PretrainTask(first=waits(), again=exits(0), begun="stopped0"), processes=2)
    interrupt(signal.SIGUSR2, task=1)
    interrupt(signal.SIGUSR2, task=0)
    assert job.results() == [0, 0]


def test_a_run_that_was_stopped_before_it_started_starts_again():
    job = submit(PretrainTask(first=waits(), again=exits(0), begun="never"))
    interrupt(signal.SIGUSR2)
    while not Path("stopped0").exists():
        time.sleep(0.02)
    Path("parent0").unlink()
    interrupt(signal.SIGTERM)
    assert job.results() == [STOPPED]
    assert not Path("again").exists()


def test_a_run_that_is_cancelled_does_not_go_on():
    """SLURM cancels by SIGTERM alone; what was saved stays, for another job."""
    job = submit(PretrainTask(first=waits(), again=exits(0), begun="stopped0"))
    interrupt(signal.SIGTERM)
    assert job.results() == [STOPPED]
    assert not Path("again").exists()


@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_run_that_ends_in_another_way_at_the_signal_does_not_go_on(status):
    job = submit(PretrainTask(first=waits(status), again=exits(0), begun="stopped0"))
    interrupt(signal.SIGUSR2)
    assert job.results() == [status]
    assert not Path("again").exists()


def test_turns_are_counted():
    job = submit(PretrainTask(first=waits(), again=exits(0), begun="stopped0"), turns=1)
    interrupt(signal.SIGUSR2)
    with pytest.raises(UncompletedJobError, match="timed-out too many times"):
        job.results()
    assert not Path("again").exists()


@pytest.mark.parametrize("status", [0, 3, STOPPED])
def test_under_slurm_only_a_failure_is_the_status_of_the_task(monkeypatch, status):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    task = PretrainTask(first=exits(status), again=exits(9), begun="begun")
    if status in (0, STOPPED):
        assert task() == status
    else:
        with pytest.raises(SystemExit) as caught:
            task()
        assert caught.value.code == status


def test_a_process_that_was_killed_has_the_status_that_a_shell_gives_it(monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    killed = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(SystemExit) as caught:
        PretrainTask(first=killed, again=exits(0), begun="begun")()
    assert caught.value.code == 128 + signal.SIGKILL


@pytest.mark.parametrize(("count", "ran"), [("0", "first"), ("1", "again")])
def test_a_job_that_slurm_has_requeued_resumes(monkeypatch, count, ran):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_RESTART_COUNT", count)
    Path("begun").touch()
    assert PretrainTask(first=exits(0, "first"), again=exits(0, "again"), begun="begun")() == 0
    assert Path(ran).exists()


def test_signals_are_as_before_after_a_run(monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    numbers = (signal.SIGTERM, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    PretrainTask(first=exits(0), again=exits(9), begun="begun")()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_command_is_not_ended_by_the_signal_that_its_task_waits_for():
    """SLURM may send it to both."""
    sends = "import os, signal, sys; os.kill(os.getpid(), signal.SIGUSR2); sys.exit(4)"
    job = submit(PretrainTask(first=python(sends), again=exits(0), begun="begun"))
    assert job.results() == [4]

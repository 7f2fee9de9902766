"""An error in training ends every process of the job soon, and names the one at fault."""

import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

SECONDS = 15
"""In which all processes have ended, counted from the traceback."""
MESSAGE = "raised on purpose"


@pytest.fixture
def failing():
    """A function that lets the third optimizer's step of this process raise an error."""
    handles = []

    def let_fail(error):
        steps = iter((None, None, error))

        def fail(*_):
            if (raised := next(steps)) is not None:
                raise raised

        handles.append(register_optimizer_step_pre_hook(fail))

    yield let_fail
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_step_ends_one_process_and_its_workers(scenes, run, capsys, failing, workers):
    failing(RuntimeError(MESSAGE))
    begin = time.monotonic()
    assert scenes.pretrain(run, "--cpu-workers", workers) == 1
    assert multiprocessing.active_children() == []
    assert time.monotonic() - begin < 2 * SECONDS
    errors = capsys.readouterr().err
    assert errors.count("Traceback (most recent call last)") == 1
    last = errors.splitlines()[-1]
    assert last.startswith("virtex pretrain: error: rank 0 on ")
    assert "failed (iteration 3, training step): RuntimeError: raised on purpose." in last
    assert MESSAGE in (run / "log_rank0.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(MESSAGE),
        MemoryError(MESSAGE),
        RuntimeError(f"DefaultCPUAllocator: can't allocate memory: {MESSAGE}"),
    ],
    ids=["GPU", "Python", "CPU"],
)
def test_a_lack_of_memory_says_what_to_try(scenes, run, capsys, failing, error):
    failing(error)
    assert scenes.pretrain(run, "--cpu-workers", 0) == 1
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert re.search(f"virtex pretrain: error: out of memory on cpu: .*{MESSAGE}", errors)
    for words in (
        "OPTIM.ACCUMULATE 2 (now 1): each process computes its 8 images in 2 parts of 4",
        "AMP true (now false)",
        "OPTIM.BATCH_SIZE 4 (now 8 over 1 process(es))",
        "--cpu-workers",
    ):
        assert words in errors


class Job:
    """Processes that were started together; what they print, and whether all of them have ended."""

    def __init__(self, scenes, run, console):
        self.words = [*scenes.arguments(run, override=()), "--checkpoint-every", "4"]
        self.console = console
        self.processes = []

    def start(self, *words, program=(), **environment):
        with self.console.open("ab") as console:
            program = (*program, "-m", "tools.faults.failing_step", "pretrain")
            process = subprocess.Popen(
                [sys.executable, *program, *map(str, words), *self.words],
                env={**os.environ, "OMP_NUM_THREADS": "1", "FAILING_STEP": "3", **environment},
                start_new_session=True,
                stdout=subprocess.PIPE,
                stderr=console,
            )
        self.processes.append(process)

    def seconds_to_end(self, tracebacks, seconds=90):
        """From that many tracebacks on, until all that hold the processes' output have ended."""
        deadline = time.monotonic() + seconds
        while self.printed.count(f"\nRuntimeError: {MESSAGE}") < tracebacks:
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.05)
        begin = time.monotonic()
        for process in self.processes:
            process.communicate(timeout=2 * SECONDS)
        return time.monotonic() - begin

    @property
    def printed(self):
        return self.console.read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def job(scenes, run, tmp_path):
    job = Job(scenes, run, tmp_path / "console")
    yield job
    for process in job.processes:
        process.kill()
        process.communicate(timeout=2 * SECONDS)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


FAILED = r"rank {} on \S+ failed \(iteration 3, training step\): RuntimeError: raised on purpose"


@pytest.mark.parametrize("rank", [0, 1])
def test_without_an_agent_the_other_process_ends_too_and_names_the_one_at_fault(job, rank):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    for number in "01":
        job.start("--cpu-workers", 1, **place, RANK=number, FAILING_RANK=str(rank))
    assert job.seconds_to_end(tracebacks=1) < SECONDS
    assert [process.returncode for process in job.processes] == [1, 1]
    named = re.findall(rf"^virtex pretrain: error: {FAILED.format(rank)}", job.printed, re.M)
    assert len(named) == 2
    assert f"Rank {1 - rank} ends too (iteration 3, " in job.printed


def test_each_attempt_of_two_machines_ends_and_names_the_one_at_fault(job):
    machines = ("--num-machines", 2, "--dist-url", f"tcp://127.0.0.1:{free_port()}")
    for number in (0, 1):
        words = ("--machine-rank", number, "--max-restarts", 1, "--cpu-workers", 0)
        job.start(*machines, *words, FAILING_RANK="1")
    assert job.seconds_to_end(tracebacks=2) < SECONDS
    assert [process.returncode for process in job.processes] == [1, 1]
    assert len(re.findall(rf"^virtex: error: {FAILED.format(1)}", job.printed, re.M)) == 4


def test_torchrun_names_the_process_at_fault_and_its_message(job):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    job.start("--cpu-workers", 2, program=torchrun, FAILING_RANK="1")
    assert job.seconds_to_end(tracebacks=1) < SECONDS
    assert job.processes[0].returncode == 1
    cause = job.printed.partition("Root Cause (first observed failure)")[2]
    assert "rank      : 1 (local_rank: 1)" in cause
    assert re.search(rf"traceback : {FAILED.format(1)}", cause)

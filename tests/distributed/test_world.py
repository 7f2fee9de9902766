import os
import signal
import subprocess
import sys

import pytest
import torch
from tests.distributed.ranks import free_url

from virtex.distributed.environment import ProcessInfo
from virtex.distributed.launch import LaunchConfig, launch
from virtex.distributed.world import Timeouts, check_gpus, connect
from virtex.errors import UserError

SUMS = """
import sys
import torch
from virtex.distributed.environment import read_environment
from virtex.distributed.launch import LaunchConfig, launch
from virtex.distributed.world import Timeouts, connect

def main(tenth):
    with connect(read_environment(), gpus=False, timeouts=Timeouts()) as (world, _):
        total = world.sum(torch.tensor([world.rank + 1.0, tenth]))
        world.wait()
        assert world.main == (world.rank == 0)
        # A write of one piece: the two processes share the pipe.
        print(f"{world.rank} of {world.size}: {total.tolist()}\\n", end="", flush=True)
    return 3 if world.main else 4

def start():
    return launch(main, 0.25, LaunchConfig(processes=2, url=sys.argv[1]))
"""


FAILS = """
import sys
from virtex.errors import UserError
from virtex.distributed.environment import read_environment
from virtex.distributed.launch import LaunchConfig, launch
from virtex.distributed.world import Timeouts, connect

def main(_):
    with connect(read_environment(), gpus=False, timeouts=Timeouts()) as (world, _):
        if world.rank == 1:
            raise UserError("no annotations")
        world.wait()
    return 0

def start():
    return launch(main, None, LaunchConfig(processes=2, url=sys.argv[1]))
"""


def two_processes(directory, program):
    (directory / "program.py").write_text(program)
    # As a module, by whose name the processes find the function.
    words = [sys.executable, "-c", "import program; raise SystemExit(program.start())", free_url()]
    process = subprocess.Popen(
        words,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=directory,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@pytest.mark.cold
def test_two_processes_sum_and_the_largest_status_is_the_run_s(tmp_path):
    ended = two_processes(tmp_path, SUMS)
    assert ended.returncode == 4, ended.stderr
    assert sorted(ended.stdout.splitlines()) == ["0 of 2: [3.0, 0.5]", "1 of 2: [3.0, 0.5]"]


def test_a_failing_process_ends_the_others_with_its_message(tmp_path):
    ended = two_processes(tmp_path, FAILS)
    assert ended.returncode == 2
    assert "virtex: error: no annotations" in ended.stderr


def test_one_process_needs_no_others():
    with connect(ProcessInfo(), gpus=False, timeouts=Timeouts()) as (world, _):
        assert (world.rank, world.size, world.main) == (0, 1, True)
        tensor = torch.tensor([2.5])
        assert world.sum(tensor).item() == 2.5
        world.wait()


def test_one_process_is_not_launched():
    pids = []
    assert launch(lambda pid: pids.append(pid) or 5, os.getpid(), LaunchConfig()) == 5
    assert pids == [os.getpid()]


def test_more_gpus_than_there_are_is_an_error():
    available = torch.cuda.device_count()
    check_gpus(available)
    message = f"{available + 8}: this machine has {available} GPUs"
    with pytest.raises(UserError, match=message):
        check_gpus(available + 8)

"""Our agent and its processes: signals, ends and restarts, with functions in place of a run."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.distributed.ranks import free_url

from virtex.distributed.launch import LaunchConfig, launch
from virtex.distributed.signals import STOPPED

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no list of processes")

PROGRAM = """
import atexit, os, signal, sys, time
from pathlib import Path
import torch
from virtex.distributed.environment import read_environment
from virtex.distributed.launch import LaunchConfig, launch
from virtex.distributed.signals import stop_requests
from virtex.distributed.world import Timeouts, connect
from virtex.errors import UserError

def joined():
    return connect(read_environment(), gpus=False, timeouts=Timeouts())

def sums(directory):
    with joined() as (world, _):
        total = world.sum(torch.tensor([world.rank + 1.0, 0.25]))
        world.wait()
        (directory / f"rank_{world.rank}").write_text(f"of {world.size}: {total.tolist()}")
    return 3 if world.main else 4

def refuses(_):
    with joined() as (world, _):
        if world.rank == 1:
            raise UserError("no annotations")
        world.wait()
    return 0

def agent_of(directory):
    maps = Path(f"/proc/{os.getppid()}/maps")
    return maps.read_text() if maps.exists() else ""

def dies_at_exit_once(directory):
    (directory / f"maps_{os.environ['TORCHELASTIC_RESTART_COUNT']}").write_text(agent_of(directory))
    if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        atexit.register(os.kill, os.getpid(), signal.SIGKILL)
    return 0

def waits(directory):
    with stop_requests() as request:
        (directory / "waiting").touch()
        while not request and os.getppid() == request.parent:
            time.sleep(0.01)
        (directory / "noted").write_text(request.signal.name)
    return 75

def fails_without_the_first(directory):
    agent = os.getppid()
    (directory / f"rank_{os.environ['RANK']}").touch()
    # The first is left behind by its agent.
    while os.getppid() == agent and (os.environ["RANK"] == "0" or not (directory / "go").exists()):
        time.sleep(0.01)
    return os._exit(3)

def start(name, directory, *words):
    machines = eval(f"LaunchConfig({words[0]})")
    return launch(globals()[name], Path(directory), machines)

def main():
    try:
        return start(*sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
"""


@pytest.fixture
def agent(tmp_path):
    """A function that starts an agent with one of the functions, and machines in words."""
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    started = []

    def start(name, machines):
        code = "import program; raise SystemExit(program.main())"
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", code, name, tmp_path, machines],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                cwd=tmp_path,
                start_new_session=True,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path.name} does not appear"
        time.sleep(0.01)


def children(pid):
    """The command lines of a process's children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    with suppress(OSError):  # one has ended meanwhile
        return [Path(f"/proc/{child}/cmdline").read_text() for child in found]
    return []


@pytest.mark.cold
def test_two_processes_sum_and_the_largest_status_is_the_job_s(agent, tmp_path):
    process = agent("sums", f"processes=2, url={free_url()!r}")
    assert process.wait(timeout=60) == 4, process.communicate()
    assert [(tmp_path / f"rank_{rank}").read_text() for rank in "01"] == ["of 2: [3.0, 0.5]"] * 2


def test_a_failing_process_ends_the_others_with_its_message(agent):
    process = agent("refuses", f"processes=2, url={free_url()!r}")
    assert "virtex: error: no annotations" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_one_process_is_not_launched():
    pids = []
    assert launch(lambda pid: pids.append(pid) or 5, os.getpid(), LaunchConfig()) == 5
    assert pids == [os.getpid()]


def test_a_process_that_is_killed_during_its_exit_is_restarted(agent, tmp_path):
    process = agent("dies_at_exit_once", f"max_restarts=1, url={free_url()!r}")
    assert process.wait(timeout=60) == 0, process.communicate()
    # Nor does the agent share anything with it by which it could wait for what was killed.
    assert [(tmp_path / f"maps_{attempt}").read_text().count("/sem.") for attempt in "01"] == [0, 0]


def test_a_signal_during_start_up_reaches_the_process(agent, tmp_path):
    process = agent("waits", f"max_restarts=1, url={free_url()!r}")
    deadline = time.monotonic() + 60
    while not any("process.py" in words for words in children(process.pid)):
        assert time.monotonic() < deadline
    assert not (tmp_path / "waiting").exists()
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == STOPPED, process.communicate()
    assert (tmp_path / "noted").read_text() == "SIGUSR1"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_an_agent_that_is_interrupted_ends_its_processes_without_a_traceback(
    agent, tmp_path, number, status
):
    process = agent("waits", f"max_restarts=1, url={free_url()!r}")
    wait_for(tmp_path / "waiting", process)
    process.send_signal(number)
    assert process.wait(timeout=20) == status
    assert process.stderr.read() == ""  # until all that hold the other end have ended


def test_the_second_machine_reports_that_it_has_lost_the_first(agent, tmp_path):
    machines = f"count=2, max_restarts=1, rendezvous_timeout=20, url={free_url()!r}"
    first, second = (
        agent("fails_without_the_first", f"{machines}, rank={rank}") for rank in (0, 1)
    )
    for rank in (0, 1):
        wait_for(tmp_path / f"rank_{rank}", first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    (tmp_path / "go").touch()
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert re.search(r"^machine 1 of 2 lost the first machine after the start: ", errors, re.M)
    assert "--dist-url" not in errors

"""Jobs of several processes: however they are started, they are one run, and end together.

All on this machine's CPU, one thread each. Equality is bit for bit with one undisturbed run.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.end_to_end.conftest import logged, scalars, wait_for
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint

ITERATIONS, EVERY = 12, 4
SHORT = ("OPTIM.NUM_ITERATIONS", str(ITERATIONS))
ENDLESS = ("OPTIM.NUM_ITERATIONS", "100000")
FLAGS = ("--checkpoint-every", EVERY, "--cpu-workers", 0)
PROCESSES = Path("/proc")

pytestmark = pytest.mark.skipif(not PROCESSES.is_dir(), reason="there is no list of processes")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Starter:
    """Starts processes, in groups of their own, and leaves none behind."""

    def __init__(self, scenes):
        self.scenes = scenes
        self.started = []

    def start(
        self, directory, *flags, program=("-m", "virtex", "pretrain"), override=SHORT, **told
    ):
        words = self.scenes.arguments(directory, *FLAGS, *flags, override=override)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **told}
        process = subprocess.Popen(
            [sys.executable, *program, *words],
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def torchrun(self, directory, *flags, restarts=0, **other):
        agent = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
        program = (*agent, "--max-restarts", str(restarts), "-m", "virtex", "pretrain")
        return self.start(directory, *flags, program=program, **other)

    def machines(self, directory, *flags, ranks=(0, 1), port=None, **other):
        """The same command on each of two machines, which are this one."""
        url = f"tcp://127.0.0.1:{port or free_port()}"
        words = ("--num-machines", 2, "--dist-url", url, "--num-gpus-per-machine", 0)
        return [
            self.start(directory, *words, "--machine-rank", rank, *flags, **other) for rank in ranks
        ]

    def srun(self, directory, *flags, **other):
        """Two tasks with the environment that SLURM's srun gives them."""
        told = {
            "SLURM_JOB_ID": str(free_port()),
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NODELIST": "localhost",
        }
        tasks = [{"SLURM_PROCID": rank, "SLURM_LOCALID": rank} for rank in "01"]
        return [self.start(directory, *flags, **told, **task, **other) for task in tasks]

    def end(self):
        for process in self.started:
            for pid in [process.pid, *descendants(process.pid)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.communicate()


def ended(process, seconds=60):
    """Status, output and errors of a process that ends within `seconds`."""
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output, errors


def descendants(pid):
    """The processes under one, which torchrun puts into sessions of their own."""
    found = []
    for entry in PROCESSES.glob("[0-9]*/task/*/children"):
        if entry.parts[2] == str(pid):
            try:
                children = [int(word) for word in entry.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
            for child in children:
                found += [child, *descendants(child)]
    return found


def process_of(agent, rank):
    """The process of a rank under torchrun's agent."""
    for pid in descendants(agent.pid):
        words = (PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
        command = (PROCESSES / str(pid) / "cmdline").read_bytes()
        if f"RANK={rank}".encode() in words and b"pretrain" in command:
            return pid
    raise AssertionError(f"rank {rank} is not there")


def under_way(run):
    """Whether a run has something to go on from, and has left it behind."""
    return checkpoint.checkpoints(run) and logged(run) > EVERY


@pytest.fixture
def starter(scenes):
    starter = Starter(scenes)
    yield starter
    starter.end()


def final(directory):
    return checkpoint.load(checkpoint.checkpoint_path(directory, ITERATIONS))


@pytest.fixture(scope="module")
def undisturbed(scenes, tmp_path_factory):
    """The directory of a run of two processes from beginning to end."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    starter = Starter(scenes)
    status, _, errors = ended(starter.torchrun(directory))
    starter.end()
    assert status == 0, errors
    yield directory
    shutil.rmtree(directory)


def assert_is(run, undisturbed):
    assert first_difference(final(run), final(undisturbed)) is None
    assert scalars(run) == scalars(undisturbed)


def test_two_processes_are_told_of_and_each_has_its_log(undisturbed):
    log = (undisturbed / "log_rank0.txt").read_text(encoding="utf-8")
    assert "2 process(es)" in log
    for rank in (0, 1):
        assert re.search(rf"rank {rank} on \S+ \(CPU\): ready; disk .* all-reduce \d+ MB/s", log)
        assert f"iteration {ITERATIONS}" in (undisturbed / f"log_rank{rank}.txt").read_text()


def test_a_job_ends_with_its_killed_process(starter, run):
    rank = 1
    agent = starter.torchrun(run, override=ENDLESS)
    wait_for(lambda: under_way(run), agent)
    os.kill(process_of(agent, rank), signal.SIGKILL)
    status, _, errors = ended(agent, seconds=30)
    assert status != 0
    assert re.search(rf"rank\s*: {rank}\b|rank {1 - rank} lost the other processes", errors)
    assert f"exitcode  : {-signal.SIGKILL} " in errors
    newest, _, damaged = checkpoint.newest_readable(run)
    assert checkpoint.checkpoint_iteration(newest) >= EVERY
    assert damaged == []


def test_a_job_recovers_by_itself_from_the_loss_of_the_process_that_saves(
    starter, run, undisturbed
):
    agent = starter.torchrun(run, restarts=1)
    wait_for(lambda: under_way(run), agent)
    os.kill(process_of(agent, 0), signal.SIGKILL)
    status, output, errors = ended(agent, seconds=90)
    assert status == 0, errors
    assert re.search(r"resuming from .*checkpoint_\d+\.pth", output)
    assert_is(run, undisturbed)


def test_two_machines_are_one_run_and_evaluations_change_no_bit(
    starter, run, undisturbed, labelled
):
    evaluations = ("EVALUATE.EVERY", EVERY, "EVALUATE.PROTOCOLS", "[knn, captioning]")
    override = (*SHORT, *evaluations, "EVALUATE.DATA", labelled)
    for process in starter.machines(run, override=override):
        status, _, errors = ended(process)
        assert status == 0, errors
    state, plain = final(run), final(undisturbed)
    state["config"]["EVALUATE"] = plain["config"]["EVALUATE"]
    assert first_difference(state, plain) is None
    evaluated = scalars(run, "evaluate/")
    assert [line["iteration"] for line in evaluated] == [4, 8, 12]
    assert [line for line in scalars(run) if line not in evaluated] == scalars(undisturbed)


def test_the_tasks_of_srun_are_one_run(starter, run, undisturbed):
    for process in starter.srun(run):
        status, _, errors = ended(process)
        assert status == 0, errors
    assert_is(run, undisturbed)


def test_a_machine_that_is_asked_to_stop_leaves_the_run_where_it_goes_on(starter, run, undisturbed):
    processes = starter.machines(run)
    wait_for(lambda: under_way(run), processes[0])
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        status, _, errors = ended(process, seconds=30)
        assert status == 75, errors
    reached = logged(run)
    assert EVERY < reached < ITERATIONS
    assert checkpoint.checkpoint_iteration(checkpoint.checkpoints(run)[-1]) == reached
    for process in starter.machines(run, "--resume-from", "latest"):
        status, _, errors = ended(process)
        assert status == 0, errors
    assert_is(run, undisturbed)


def test_processes_whose_agent_dies_save_and_end(starter, run):
    agent = starter.torchrun(run, override=ENDLESS)
    wait_for(lambda: logged(run) > 1, agent)
    agent.kill()
    _, output, errors = ended(agent, seconds=40)  # the output ends with the last of them
    reached = logged(run)
    assert f"stopped by SIGTERM after iteration {reached}" in output, errors
    assert checkpoint.checkpoint_iteration(checkpoint.checkpoints(run)[-1]) == reached


def test_one_process_that_is_asked_to_stop_goes_on_as_if_it_had_not_been(scenes, reference, run):
    flags = ("--checkpoint-every", 7)
    process = scenes.start(run, *flags)
    wait_for(lambda: logged(run) > 1, process)
    process.send_signal(signal.SIGTERM)
    status, output, errors = ended(process, seconds=30)
    assert (status, errors) == (75, "")
    reached = logged(run)
    assert (
        f"stopped by SIGTERM after iteration {reached}; continue with --resume-from latest"
        in output
    )
    saved = checkpoint.checkpoint_path(run, reached)
    assert checkpoint.checkpoints(run)[-1] == saved
    assert scenes.pretrain(run, *flags, "--resume-from", "latest") == 0
    ours, theirs = (checkpoint.load(path / "checkpoint_20.pth") for path in (run, reference))
    assert first_difference(ours, theirs) is None
    assert scalars(run) == scalars(reference)


def test_a_machine_that_does_not_come_is_named_in_time(starter, run):
    (process,) = starter.machines(run, "--rendezvous-timeout", 3, ranks=[0])
    start = time.monotonic()
    status, _, errors = ended(process)
    assert status == 1
    assert time.monotonic() - start < 40
    assert re.search(r"rank 1\b|machine 0 of 2 could not join the others", errors)
    assert "Traceback" not in errors


def test_a_first_machine_that_does_not_come_is_named_in_time(starter, run):
    (process,) = starter.machines(run, "--rendezvous-timeout", 3, ranks=[1])
    status, _, errors = ended(process)
    assert status == 1
    assert "machine 1" in errors
    assert "tcp://127.0.0.1:" in errors
    assert "Traceback" not in errors


def test_a_task_that_does_not_come_is_named(starter, run):
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    process = starter.start(run, "--rendezvous-timeout", 2, **told, MASTER_PORT=str(free_port()))
    status, _, errors = ended(process)
    assert status == 1
    assert "1 of 2 processes did not join within 2 s: rank 1." in errors
    assert "Traceback" not in errors


def test_a_port_that_another_program_uses_is_named(starter, run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (process,) = starter.machines(run, "--rendezvous-timeout", 5, ranks=[0], port=port)
        status, _, errors = ended(process)
        assert status == 1
        assert f"127.0.0.1:{port}" in errors
        assert "--dist-url" in errors
        assert "Traceback" not in errors


def test_machines_with_different_settings_are_told_apart_before_the_run(starter, run):
    port = free_port()
    (first,) = starter.machines(run, ranks=[0], port=port)
    override = (*SHORT, "OPTIM.LR", "0.02")
    (second,) = starter.machines(run, ranks=[1], port=port, override=override)
    status, _, errors = ended(first)
    assert status == 2
    assert re.search(r"rank 0 on .*: ready", errors)
    assert re.search(
        r"rank 1 on .*: NOT READY.*\n +configuration is \w+, but \w+ on rank 0", errors
    )
    status, _, errors = ended(second)
    assert status == 2
    assert "Traceback" not in errors
    assert not checkpoint.checkpoints(run)


def test_preflight_says_a_verdict_on_each_process_and_trains_nothing(starter, run):
    outputs = []
    for process in starter.machines(run, "--preflight"):
        status, output, errors = ended(process)
        assert status == 0, errors
        outputs.append(output)
    for rank in (0, 1):
        assert re.search(rf"rank {rank} on \S+ \(CPU\): ready", outputs[0])
    assert not run.exists()


def test_preflight_leaves_a_directory_in_which_the_run_can_begin(scenes, run):
    assert scenes.pretrain(run, "--preflight", override=("OPTIM.NUM_ITERATIONS", "4")) == 0
    assert scenes.pretrain(run, override=("OPTIM.NUM_ITERATIONS", "4")) == 0


def test_preflight_leaves_a_run_that_is_there_as_it_is(scenes, undisturbed, run):
    shutil.copytree(undisturbed, run)
    names = [*run.glob("checkpoint_*"), *run.glob("config.yaml"), *run.glob("scalars.jsonl")]
    before = {path.name: path.read_bytes() for path in names}
    assert scenes.pretrain(run, "--preflight", override=("OPTIM.NUM_ITERATIONS", "4")) == 0
    for name, content in before.items():
        assert (run / name).read_bytes() == content, name


def test_the_second_job_in_a_directory_is_refused_and_the_first_unharmed(starter, run, undisturbed):
    first = starter.torchrun(run)
    wait_for(lambda: (run / "config.yaml").exists(), first)
    second = starter.start(run, "--resume-from", "latest")
    status, _, errors = ended(second)
    assert status == 2
    assert f"another job is writing to {run}: process " in errors
    assert "Traceback" not in errors
    status, _, errors = ended(first)
    assert status == 0, errors
    assert_is(run, undisturbed)

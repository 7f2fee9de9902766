"""Faults of the second round: errors in a step, lost main processes, stopped workers, memory.

The first round's are in `fault_kinds`.
"""

import shutil
import signal
import subprocess
import time
from pathlib import Path

from tools.faults.failing_step import MESSAGE
from tools.faults.jobs import wait
from tools.faults.kinds import KINDS, NEVER, Kind, NotTestable, Trial, fill, send_to_rank

WORKERS_END_SECONDS = 2.0
SHARED_MEMORY = Path("/dev/shm")
_STEP_SECONDS = 15.0
"""In which a job must end after an error in a step."""


def fail_in_step(error: str) -> Kind:
    """A step of a drawn rank raises; where there is a restart, in the first attempt alone."""

    def prepare(trial: Trial) -> None:
        rank = trial.rng.randrange(trial.launcher.processes)
        trial.program = "tools.faults.failing_step"
        trial.environment = {
            "FAILING_STEP": str(trial.rng.randint(2, 12)),
            "FAILING_RANK": str(rank),
            "FAILING_ERROR": error,
            "FAILING_ATTEMPT": "0",
        }
        trial.must_say = rf"rank {rank}\b"

    def inject(trial: Trial) -> str:
        wait(lambda: MESSAGE in trial.job.said or trial.job.ended, 120)
        where = trial.environment
        return f"rank {where['FAILING_RANK']}, step {where['FAILING_STEP']}"

    memory = error == "memory"
    return Kind(
        "out of memory in a step" if memory else "exception in a step",
        "The same; the message says what to try."
        if memory
        else f"The job ends within {_STEP_SECONDS:.0f} s and names rank and error, or restarts.",
        inject,
        prepare=prepare,
        moments=("start",),
        says="OPTIM.ACCUMULATE|OPTIM.BATCH_SIZE" if memory else MESSAGE,
        within=_STEP_SECONDS,
    )


def kill_main_processes(trial: Trial) -> str:
    """SIGKILL to agents and ranks: nobody is left to end the workers but themselves."""
    job = trial.job
    wait(lambda: bool(job.workers()), 60)
    workers = job.workers()
    job.send(signal.SIGKILL, [agent.pid for agent in job.agents] + list(job.ranks().values()))
    begun = time.monotonic()
    left = lambda: {one.pid for one in job.processes()} & set(workers)  # noqa: E731
    if not wait(lambda: not left(), WORKERS_END_SECONDS):
        trial.problems.append(f"{len(left())} workers lived for {WORKERS_END_SECONDS:.0f} s")
    return f"workers ended within {time.monotonic() - begun:.1f} s"


def stop_worker(trial: Trial) -> str:
    wait(lambda: bool(trial.job.workers()) or trial.job.ended, 60)
    workers = trial.job.workers()
    if not workers:
        raise NotTestable("the workers had ended")
    trial.job.send(signal.SIGSTOP, [trial.rng.choice(workers)])
    return "a loader worker"


def terminate_and_kill(trial: Trial) -> str:
    pids = [process.pid for process in trial.job.processes()]
    trial.job.send(signal.SIGTERM, pids)
    trial.job.send(signal.SIGKILL, pids)
    return "to all processes"


def hang_up(trial: Trial) -> str:
    trial.job.send(signal.SIGHUP, [process.pid for process in trial.job.processes()])
    return "to all processes"


def interrupt(trial: Trial) -> str:
    """As a terminal sends it, to all at once."""
    trial.job.send(signal.SIGINT, [process.pid for process in trial.job.processes()])
    return "to all processes"


def with_little_shared_memory(trial: Trial) -> None:
    """A mount namespace of its own, with 24 MB of shared memory."""
    mount = 'mount -t tmpfs -o size=24m tmpfs /dev/shm && exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", mount, "sh")
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotTestable("no disk can be mounted here") from error
    trial.prefix = words


def fill_shared_memory(trial: Trial) -> str:
    for agent in trial.job.agents:
        fill(Path(f"/proc/{agent.pid}/root/dev/shm/filler"), 4096)
    return "4 KiB left"


def kill_first_machine(trial: Trial) -> str:
    job = trial.job
    job.send(signal.SIGKILL, [job.agents[0].pid, job.ranks().get(0, job.agents[0].pid)])
    return "agent and process of the first machine"


def remove_a_shard(trial: Trial) -> str:
    """What a resumed run trains on is not what it was: the last shard of training is gone."""
    trial.job.end()
    train, away = trial.shards / "train", trial.shards / "away"
    shutil.copytree(train, away)

    def back() -> None:
        shutil.rmtree(train)
        away.rename(train)

    trial.undo.append(back)
    (train / "shards.json").unlink()  # else it is missing, and named as such
    shard = max(train.glob("*.tar"))
    for path in train.glob(f"*{shard.stem}*"):
        path.unlink()
    trial.job.go_on()
    wait(lambda: trial.job.ended, 120)
    if trial.job.statuses != [2] * len(trial.job.agents):
        trial.problems.append(f"resuming on other data ended with {trial.job.statuses}")
    return f"{shard.name} is gone"


ENDINGS = {
    kind.name: kind
    for kind in (
        fail_in_step("error"),
        fail_in_step("memory"),
        Kind(
            "SIGHUP to the job",
            "As when a terminal closes: all processes end.",
            hang_up,
            moments=("iteration", "save"),
            within=30,
            stops=True,
        ),
        Kind(
            "SIGINT to the job",
            "As Ctrl-C: all processes end, and print no traceback.",
            interrupt,
            moments=("start", "iteration"),
            never=NEVER + "|Traceback",
            within=30,
            stops=True,
        ),
        Kind(
            "kill -9 of all main processes",
            f"The loader workers end by themselves within {WORKERS_END_SECONDS:.0f} s.",
            kill_main_processes,
            within=10,
        ),
        Kind(
            "SIGTERM, at once SIGKILL",
            "What was saved is whole.",
            terminate_and_kill,
            moments=("iteration", "save", "last save"),
            within=10,
        ),
        Kind(
            "SIGSTOP of a loader worker",
            "After `--watchdog-timeout` (15 s here) the process that waits for it says so; the job "
            "ends or starts anew. After the last save the job ends all the same.",
            stop_worker,
            prepare=lambda trial: setattr(trial, "flags", ("--watchdog-timeout", "15")),
            moments=("iteration", "last save"),
        ),
        Kind(
            "kill -9 of rank 0 after the last save",
            "The job ends, or starts anew and finds nothing left to do.",
            send_to_rank(signal.SIGKILL, 0),
            moments=("last save",),
        ),
        Kind(
            "kill -9 of the first machine",
            "The second ends, and says that the first was lost, not that it could not be reached.",
            kill_first_machine,
            never=NEVER + "|see --dist-url|could not meet",
            first=3,
            launchers=lambda launcher: launcher.machines == 2 and not launcher.restarts,
        ),
        Kind(
            "shared memory full",
            "The job ends, and says what is too small and what to do.",
            fill_shared_memory,
            prepare=with_little_shared_memory,
            says="/dev/shm.*--shm-size",
            launchers=lambda launcher: not launcher.restarts,
        ),
        Kind(
            "shard removed between stop and resume",
            "Resuming is refused with status 2 on every process, until they are back.",
            remove_a_shard,
            first=6,
            says="--accept-changed-data",
        ),
    )
}
SECOND_ROUND = {
    **ENDINGS,
    **{
        name: KINDS[name]
        for name in (
            "SIGTERM to the job",
            "kill -9 of rank 0",
            "kill -9 of rank 1",
            "kill -9 of a loader worker",
            "SIGSTOP of a rank",
        )
    },
}
"""The new kinds, and those of the first round that depend most on the number of processes."""

"""Faults of the second round: errors in a step, lost main processes, stopped workers, memory.

The faults of the first round are in `tools.faults.kinds`.
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
"""The time within which a job must end after an error in a step."""


def fail_in_step(error: str) -> Kind:
    """An error in a step of a random rank, in the first attempt only."""

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
        wait(lambda: MESSAGE in trial.job.output or trial.job.ended, 120)
        where = trial.environment
        return f"rank {where['FAILING_RANK']}, step {where['FAILING_STEP']}"

    memory = error == "memory"
    return Kind(
        "out of memory in a step" if memory else "exception in a step",
        "The same; the message says which settings to try."
        if memory
        else f"The job ends within {_STEP_SECONDS:.0f} s and names rank and error, or restarts.",
        inject,
        prepare=prepare,
        moments=("start",),
        says="OPTIM.ACCUMULATE|OPTIM.BATCH_SIZE" if memory else MESSAGE,
        within=_STEP_SECONDS,
    )


def kill_main_processes(trial: Trial) -> str:
    """Kill agents and ranks, so that the workers must end by themselves."""
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
    """Send SIGINT to all processes at once, as a terminal does."""
    trial.job.send(signal.SIGINT, [process.pid for process in trial.job.processes()])
    return "to all processes"


def with_little_shared_memory(trial: Trial) -> None:
    """Run the job in its own mount namespace with 24 MB of shared memory."""
    mount = 'mount -t tmpfs -o size=24m tmpfs /dev/shm && exec "$@"'
    words = ("unshare", "--mount", "sh", "-c", mount, "sh")
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotTestable("this machine cannot mount a disk") from error
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
    """Remove the last shard of training between stop and resume."""
    trial.job.end()
    train, away = trial.shards / "train", trial.shards / "away"
    shutil.copytree(train, away)

    def back() -> None:
        shutil.rmtree(train)
        away.rename(train)

    trial.undo.append(back)
    (train / "shards.json").unlink()  # otherwise the shard would be reported as missing
    shard = max(train.glob("*.tar"))
    for path in train.glob(f"*{shard.stem}*"):
        path.unlink()
    trial.job.resume()
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
            f"The loader workers exit by themselves within {WORKERS_END_SECONDS:.0f} s.",
            kill_main_processes,
            within=10,
        ),
        Kind(
            "SIGTERM, at once SIGKILL",
            "Whatever was saved is intact.",
            terminate_and_kill,
            moments=("iteration", "save", "last save"),
            within=10,
        ),
        Kind(
            "SIGSTOP of a loader worker",
            "After `--watchdog-timeout` (15 s here) the process that waits for it reports it; the "
            "job ends or restarts. After the last save the job ends normally.",
            stop_worker,
            prepare=lambda trial: setattr(trial, "flags", ("--watchdog-timeout", "15")),
            moments=("iteration", "last save"),
        ),
        Kind(
            "kill -9 of rank 0 after the last save",
            "The job ends, or restarts and finds nothing to do.",
            send_to_rank(signal.SIGKILL, 0),
            moments=("last save",),
        ),
        Kind(
            "kill -9 of the first machine",
            "The second ends, and reports that the first was lost, not that it is unreachable.",
            kill_first_machine,
            never=NEVER + "|see --dist-url|could not join",
            first=3,
            launchers=lambda launcher: launcher.machines == 2 and not launcher.restarts,
        ),
        Kind(
            "shared memory full",
            "The job ends, and the message says what is too small and what to do.",
            fill_shared_memory,
            prepare=with_little_shared_memory,
            says="/dev/shm.*--shm-size",
            launchers=lambda launcher: not launcher.restarts,
        ),
        Kind(
            "shard removed between stop and resume",
            "Resuming is refused with status 2 on every process until the shard is back.",
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
"""The new kinds, and the kinds of the first round that depend most on the number of processes."""

"""The faults: how each is injected into a job, what should happen then, and how it is undone."""

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tools.faults.jobs import HUNG_SECONDS, Job, Launcher, wait
from tools.faults.store import Server, served

from virtex.checkpoints.file import checkpoints

NEVER = r"resource_tracker\.py|python[\d.]+/multiprocessing/\w+\.py|leaked \w+ objects"
"""What a job must never print."""
SHARD_FAILS = r"\d{5}\.tar: \S+\.\w+"
"""A shard and one of its members, as an error names them."""


class NotTestable(Exception):
    """The fault cannot be injected on this machine."""


@dataclass
class Trial:
    """A job with its own copy of the data, and the state of a fault."""

    root: Path
    name: str
    launcher: Launcher
    rng: random.Random
    stack: ExitStack
    flags: tuple[str, ...] = ()
    program: str = "virtex"
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    data: str = ""
    server: Server | None = None
    must_say: str = ""
    problems: list[str] = field(default_factory=list)
    undo: list[Callable[[], None]] = field(default_factory=list)
    job: Job = field(init=False)

    def __post_init__(self) -> None:
        self.shards = self.root / self.name / "shards"
        shutil.copytree(self.root / "shards", self.shards)
        self.data = str(self.shards)

    def make_job(self) -> Job:
        """Create the job; a second call creates another one in the same directory."""
        self.job = Job(self.root, self.name, self.launcher, self.data, self.flags)
        self.job.program, self.job.environment = self.program, self.environment
        self.job.prefix = self.prefix
        return self.job

    def heal(self) -> None:
        """Undo the fault."""
        while self.undo:
            self.undo.pop()()


def nothing(_: Trial) -> None:
    """No preparation."""


@dataclass(frozen=True)
class Kind:
    """A fault; `inject` causes it and describes what it did, `promise` is the expected behaviour.

    With `stops` the job must not run to its end, with `loses_nothing` it must save before it stops,
    and with `unharmed` it must continue without a restart. A job that ends must do so `within`
    seconds. The output must match `says` and not `never`. `launchers` selects those to which the
    fault applies.
    """

    name: str
    promise: str
    inject: Callable[[Trial], str]
    prepare: Callable[[Trial], None] = nothing
    moments: tuple[str, ...] = ("iteration",)
    first: int = 1
    last: int = 15
    says: str = ""
    stops: bool = False
    loses_nothing: bool = False
    unharmed: bool = False
    within: float = HUNG_SECONDS
    never: str = NEVER
    launchers: Callable[[Launcher], bool] = lambda _: True


def send_to_job(number: signal.Signals, *, agents_alone: bool) -> Callable[[Trial], str]:
    """Send the signal to every process of the job, or to its agents, which must forward it."""

    def inject(trial: Trial) -> str:
        job = trial.job
        agents = [agent.pid for agent in job.agents]
        if (agents_alone or trial.launcher.machines) and trial.rng.random() < 0.5:
            job.send(number, agents)
            return "to the agents"
        job.send(number, [process.pid for process in job.processes()])
        return "to all processes"

    return inject


def send_to_rank(number: signal.Signals, rank: int | None) -> Callable[[Trial], str]:
    """Send the signal to one rank; to a random one if `rank` is None."""

    def inject(trial: Trial) -> str:
        chosen = trial.rng.randrange(trial.launcher.processes) if rank is None else rank
        wait(lambda: chosen in trial.job.ranks(), 60)
        trial.job.send(number, [trial.job.ranks()[chosen]])
        if number == signal.SIGSTOP:
            trial.must_say = rf"rank {chosen} on .*nothing heard"
            if chosen == 0:  # which may serve the store that the others would read
                trial.must_say += "|the store, which rank 0 .* does not answer"
        return f"rank {chosen}"

    return inject


def kill_agent(trial: Trial) -> str:
    number = trial.rng.randrange(len(trial.job.agents))
    trial.job.send(signal.SIGKILL, [trial.job.agents[number].pid])
    return f"agent {number}"


def kill_worker(trial: Trial) -> str:
    wait(lambda: bool(trial.job.workers()), 60)
    trial.job.send(signal.SIGKILL, [trial.rng.choice(trial.job.workers())])
    return "a loader worker"


def mount(trial: Trial) -> None:
    """Mount a small disk in memory as the run's directory."""
    directory = trial.root / trial.name / "run"
    directory.mkdir(parents=True)
    words = ["mount", "-t", "tmpfs", "-o", "size=500m", "tmpfs", directory]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotTestable("this machine cannot mount a disk") from error
    trial.stack.callback(subprocess.run, ["umount", "--lazy", directory], check=True)


def fill_disk(trial: Trial) -> str:
    directory = trial.job.directory
    left = trial.rng.randrange(40 * 2**20)
    filler = directory / "filler"
    while not fill(filler, left):
        pass  # a save has taken the space in the meantime
    trial.undo.append(filler.unlink)
    return f"{left >> 20} MiB left"


def fill(filler: Path, left: int) -> bool:
    """Allocate all but `left` bytes of the disk; returns whether that succeeded."""
    with filler.open("wb") as file:
        room = os.statvfs(filler)
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_bsize - left))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return False
    return True


def forbid_writing(trial: Trial) -> str:
    directory = trial.job.directory
    try:
        subprocess.run(["chattr", "+i", directory], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotTestable("this machine cannot make a directory immutable") from error
    free = lambda: subprocess.run(["chattr", "-i", directory], check=False)  # noqa: E731
    trial.undo.append(free)
    trial.stack.callback(free)
    return "immutable"


def rename_away(trial: Trial) -> str:
    directory = trial.job.directory
    away = directory.with_name("away")
    directory.rename(away)

    def back() -> None:
        if directory.exists():  # a restart has begun the run there from scratch
            shutil.rmtree(directory)
        away.rename(directory)

    trial.undo.append(back)
    return "renamed"


def kill_all(trial: Trial) -> None:
    trial.job.end()


def cut_newest(trial: Trial) -> str:
    kill_all(trial)
    path = checkpoints(trial.job.directory)[-1]
    size = trial.rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    trial.must_say = rf"{path.name} is damaged; the previous one is used"
    return f"{path.name} cut to {size} bytes"


def flip_bit_of_newest(trial: Trial) -> str:
    kill_all(trial)
    path = checkpoints(trial.job.directory)[-1]
    place = trial.rng.randrange(path.stat().st_size)
    flip(path, place, 1 << trial.rng.randrange(8))
    return f"a bit of byte {place} of {path.name}"


def leave_partial_file(trial: Trial) -> str:
    kill_all(trial)
    found = trial.job.partial_file
    if found is None:
        found = trial.job.directory / ".checkpoint_20.pth.partial"
        found.write_bytes(trial.rng.randbytes(1000))
    return f"{found.name}, {found.stat().st_size} bytes"


def restoring(trial: Trial, path: Path) -> None:
    content = path.read_bytes()
    trial.undo.append(lambda: path.write_bytes(content) and None)


def spoil_pictures(trial: Trial) -> str:
    """Change a few bytes of one image in each shard, so that a damaged one is soon read."""
    for path in sorted((trial.shards / "train").glob("*.tar")):
        restoring(trial, path)
        with tarfile.open(path) as tar:
            images = [one for one in tar.getmembers() if one.name.endswith((".jpg", ".png"))]
        member = trial.rng.choice(images)
        for _ in range(3):
            place = member.offset_data + trial.rng.randrange(member.size)
            flip(path, place, trial.rng.randrange(1, 256))
    return "an image of each shard"


def cut_shard(trial: Trial) -> str:
    path = trial.rng.choice(sorted((trial.shards / "train").glob("*.tar")))
    restoring(trial, path)
    size = trial.rng.randrange(path.stat().st_size // 2)
    os.truncate(path, size)
    return f"{path.name} cut to {size} bytes"


def serve(trial: Trial) -> None:
    trial.server = trial.stack.enter_context(served(trial.shards, trial.rng, share=0.3))
    trial.data = trial.server.address


def take_store_away(trial: Trial) -> str:
    assert trial.server is not None
    trial.server.out = True
    time.sleep(trial.rng.uniform(1, 5))
    trial.server.out = False
    return "30% of all requests fail, and all for some seconds"


def start_second(trial: Trial) -> str:
    """Start a second job while the first is paused, so that the first cannot end before."""
    first = trial.job
    held = [process.pid for process in first.processes()]
    first.send(signal.SIGSTOP, held)
    begun = time.monotonic()
    second = trial.make_job()
    trial.job = first
    trial.stack.callback(second.end)
    second.resume()
    ended = wait(lambda: second.ended, 120)
    seconds = time.monotonic() - begun
    first.send(signal.SIGCONT, held)
    trial.must_say = "another job is writing to" if ended else "it to end"
    return f"ended after {seconds:.0f} s with {second.statuses}"


def flip(path: Path, place: int, bits: int) -> None:
    """Invert `bits` of the byte at `place`."""
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)[0]
        file.seek(place)
        file.write(bytes([old ^ bits]))


def misses(trial: Trial, kind: Kind) -> list[str]:
    """The expected messages that are missing, and forbidden output on the console.

    The log, which has the stacks of all threads of a stuck job, is not searched for the latter.
    """
    output = trial.job.output + trial.job.log
    missing = [
        f"nothing says {pattern!r}"
        for pattern in (kind.says, trial.must_say)
        if pattern and not re.search(pattern, output)
    ]
    wrong = re.search(kind.never, trial.job.output)
    return [*missing, *([] if wrong is None else [f"the console has {wrong[0]!r}"])]


ANY = ("start", "iteration", "save")
KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "SIGTERM to the job",
            "All processes stop after the same iteration, which is saved; nothing is lost.",
            send_to_job(signal.SIGTERM, agents_alone=True),
            moments=ANY,
            stops=True,
            loses_nothing=True,
        ),
        Kind(
            "SIGUSR1 to the job",
            "As SIGTERM. torchrun does not pass it on, so there it is sent to all processes.",
            send_to_job(signal.SIGUSR1, agents_alone=False),
            moments=ANY,
            stops=True,
            loses_nothing=True,
        ),
        Kind(
            "kill -9 of rank 0",
            "The job ends, or restarts from the newest checkpoint (`--max-restarts`).",
            send_to_rank(signal.SIGKILL, 0),
            moments=ANY,
        ),
        Kind(
            "kill -9 of rank 1",
            "The same.",
            send_to_rank(signal.SIGKILL, 1),
            moments=ANY,
        ),
        Kind(
            "kill -9 of an agent",
            "Its processes notice, save and exit by themselves, and so does the other machine.",
            kill_agent,
            moments=ANY,
            last=6,
            stops=True,
        ),
        Kind(
            "kill -9 of a loader worker",
            "As for a rank; the error message gives the usual cause of a lost worker.",
            kill_worker,
            says="A worker that was killed mostly means too little",
        ),
        Kind(
            "SIGSTOP of a rank",
            "After `--watchdog-timeout` (15 s here) another rank reports where each rank is; the "
            "job ends or restarts.",
            send_to_rank(signal.SIGSTOP, None),
            prepare=lambda trial: setattr(trial, "flags", ("--watchdog-timeout", "15")),
            says="has been stuck for",
        ),
        Kind(
            "full disk",
            "The next save fails with a message; older checkpoints stay intact, and the job ends.",
            fill_disk,
            prepare=mount,
            moments=("iteration", "save"),
            says="could not save|No space left|two checkpoints take",
        ),
        Kind(
            "run directory immutable",
            "The same.",
            forbid_writing,
            moments=("iteration", "save"),
            says="could not save|is not writable|reading or writing failed",
        ),
        Kind(
            "run directory renamed",
            "The same; a restart begins a new run in the old place.",
            rename_away,
            moments=("iteration", "save"),
            says="could not save|reading or writing failed",
        ),
        Kind(
            "newest checkpoint cut",
            "The damage is detected, and the run continues from the one before.",
            cut_newest,
            first=11,
        ),
        Kind(
            "bit of the newest checkpoint flipped",
            "The same, unless the bit carries no information.",
            flip_bit_of_newest,
            first=11,
        ),
        Kind(
            "left-over partial file",
            "It is removed, and the run continues from the newest checkpoint.",
            leave_partial_file,
            moments=("save",),
        ),
        Kind(
            "pictures in shards damaged",
            "The job ends when it reads one, and names shard and member.",
            spoil_pictures,
            moments=("start", "iteration"),
            last=8,
            says=SHARD_FAILS,
        ),
        Kind(
            "shard cut",
            "The job ends when it reads the missing part, and names the shard.",
            cut_shard,
            moments=("start", "iteration"),
            last=8,
            says=r"\d{5}\.tar",
        ),
        Kind(
            "slow store with errors",
            "Requests are retried; the job continues, and nothing changes.",
            take_store_away,
            prepare=serve,
            moments=("start", "iteration"),
            unharmed=True,
        ),
        Kind(
            "second job in the directory",
            "It is refused, and the first one is not disturbed.",
            start_second,
            unharmed=True,
        ),
    )
}

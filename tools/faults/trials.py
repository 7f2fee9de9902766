"""Random faults in training: does the job end or recover, and is its result unchanged?

    python -m tools.faults.trials --round 2 --trials 52 [--seed 0 | --kinds NAME … | --write]

The reference is an undisturbed run of 20 iterations on as many CPU processes (1 to 3): a RegNet on
drawn scenes in shards, with dropout, augmentation, a loader worker each, Lookahead in the middle of
its cycle and a checkpoint every 5 iterations. A trial starts the same job under one of several
launchers and injects one fault at a random moment: the job must end or recover by itself within
`HUNG_SECONDS` and leave no process and no shared memory. Then the fault is undone, the run is
continued with `--resume-from latest`, and the weights, the optimizer's state and the losses of all
iterations must equal the reference's bit for bit. Each trial prints a line, and a line of JSON that
is appended to a file; `--write` writes docs/faults.md from that file. Linux only; some kinds need
root.
"""

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from tools.faults.endings import SECOND_ROUND, SHARED_MEMORY
from tools.faults.jobs import (
    HUNG_SECONDS,
    ITERATIONS,
    LAUNCHERS,
    MORE_LAUNCHERS,
    Job,
    Launcher,
    wait,
)
from tools.faults.kinds import KINDS, Kind, NotTestable, Trial, misses
from tools.faults.page import Record, line, page, read

from virtex.checkpoints.file import checkpoint_path, load
from virtex.errors import UserError

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "benchmarks" / "results" / "faults.jsonl"
RESULTS_2 = REPOSITORY / "benchmarks" / "results" / "faults_2.jsonl"
STEPS = REPOSITORY / "benchmarks" / "results" / "step_failures.jsonl"
ROUNDS = {1: (KINDS, LAUNCHERS, RESULTS), 2: (SECOND_ROUND, MORE_LAUNCHERS, RESULTS_2)}
PAGE = REPOSITORY / "docs" / "faults.md"
RUN_SECONDS = 300
"""More than a whole run takes, also while other work runs beside it."""
START_SECONDS = 12.0
"""About how long a start takes; moments in it are drawn from this range."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults in training, one at a time.")
    parser.add_argument("--trials", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--round", type=int, choices=ROUNDS, default=2, help="default: %(default)s")
    every = sorted(KINDS | SECOND_ROUND)
    parser.add_argument("--kinds", nargs="+", choices=every, help="run one trial of each of these")
    parser.add_argument("--only", nargs="+", type=int, help="repeat these trials")
    parser.add_argument(
        "--skip-recorded", action="store_true", help="skip trials that are recorded"
    )
    parser.add_argument("--results", type=Path, help="default: of the round")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md; run nothing")
    arguments = parser.parse_args()
    if arguments.write:
        PAGE.write_text(page(read(RESULTS), read(RESULTS_2), read(STEPS)), encoding="utf-8")
        return
    kinds, launchers, results = ROUNDS[arguments.round]
    results = arguments.results or results
    # The processes that it has started must end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Background shells and nohup ignore these, and the jobs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    drawn = arguments.kinds or names(arguments.trials, arguments.seed, kinds)
    plan = [kinds[name] for name in drawn]
    chosen = range(len(plan)) if arguments.only is None else arguments.only
    done = {record["trial"] for record in read(results)} if arguments.skip_recorded else set()
    failed = False
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        prepare(root)
        for number in chosen:
            if number not in done:
                record = run_trial(number, plan[number], arguments.seed, root, launchers)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                failed |= bool(record["problems"])
    sys.exit(1 if failed else 0)


def names(trials: int, seed: int, kinds: Collection[str] = KINDS) -> list[str]:
    """The kinds of `trials` trials in random order: each kind twice, then random ones."""
    rng = random.Random(f"kinds {seed}")
    once, again = (rng.sample(list(kinds), len(kinds)) for _ in range(2))
    return [*once, *again, *rng.choices(list(kinds), k=trials)][:trials]


def prepare(root: Path) -> None:
    """Create scenes, a vocabulary and shards under `root`."""
    scenes = root / "scenes"
    captions = scenes / "annotations" / "captions_train2017.json"
    for words in (
        ["synthesize", scenes, "--train", 64, "--val", 10, "--size", 64, "--only", "coco"],
        ["tokenizer", captions, "--output", root / "vocabulary.model", "--vocab-size", 110],
        ["pack", "--from", "coco", scenes, root / "shards", "--samples-per-shard", 8],
    ):
        command = [sys.executable, "-m", "virtex", *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def undisturbed(root: Path, processes: int = 2) -> Path:
    """The directory of a run without a fault; runs it if necessary."""
    launcher = Launcher("torchrun", processes=processes)
    job = Job(root, f"reference_{processes}", launcher, str(root / "shards"))
    if checkpoint_path(job.directory, ITERATIONS).exists():
        return job.directory
    job.start()
    try:
        if not wait(lambda: job.ended, RUN_SECONDS) or job.statuses != [0]:
            raise SystemExit(f"the run without a fault failed:\n{job.output[-3000:]}")
    finally:
        job.end()
    return job.directory


def run_trial(
    number: int, kind: Kind, seed: int, root: Path, launchers: Sequence[Launcher]
) -> Record:
    """Run one trial, end all that it started, and print its record.

    The launcher is drawn from those to which the fault applies.
    """
    rng = random.Random(f"{seed} {number} {kind.name}")
    launcher = rng.choice([one for one in launchers if kind.launchers(one)])
    reference = undisturbed(root, launcher.processes)
    record: Record = {"trial": number, "kind": kind.name, "launcher": launcher.name}
    name = f"trial_{number}"
    memory = shared_memory()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root / name, ignore_errors=True)
        trial = Trial(root, name, launcher, rng, stack)
        try:
            kind.prepare(trial)
            job = trial.make_job()
            stack.callback(job.end)
            record |= run_with_fault(trial, kind)
            record |= judge(trial, kind, reference, record)
            wait(lambda: not shared_memory() - memory, 5)
            if left := shared_memory() - memory:
                record["problems"].append(f"left in shared memory: {', '.join(sorted(left))}")
        except NotTestable as error:
            record |= {"outcome": f"not testable: {error}", "problems": []}
        if record["problems"]:
            print(trial.job.output[-6000:] if hasattr(trial, "job") else "", file=sys.stderr)
    print(line(record), flush=True)
    print(json.dumps(record), flush=True)
    return record


def run_with_fault(trial: Trial, kind: Kind) -> Record:
    """Start the job, inject the fault, and watch until everything has ended."""
    job = trial.job
    job.start()
    moment = await_moment(trial, kind)
    before, at = job.sessions, job.iteration
    detail = kind.inject(trial)
    begun = time.monotonic()
    outcome, seconds = watch(job, kind, (before, at), begun)
    return {
        "moment": moment,
        "detail": detail,
        "outcome": outcome,
        "seconds": round(seconds, 1),
        "statuses": job.statuses,
        # An attempt that was lost before it started its log left no trace there.
        "restarts": max(job.sessions - max(1, before), int(outcome == "recovered")),
        "iteration": job.iteration,
    }


def await_moment(trial: Trial, kind: Kind) -> str:
    """Wait for a random moment; returns its description."""
    rng, job = trial.rng, trial.job
    moment = rng.choice(kind.moments)
    if moment == "start":
        seconds = rng.uniform(0, START_SECONDS)
        time.sleep(seconds)
        return f"{seconds:.1f} s after the start"
    iteration = rng.randint(kind.first, kind.last)
    ready = lambda: job.iteration >= iteration or job.ended  # noqa: E731
    wait(ready, RUN_SECONDS)
    if moment == "save":
        wait(lambda: job.partial_file is not None or job.ended, RUN_SECONDS)
        time.sleep(rng.uniform(0, 0.1))
        return f"a save after iteration {job.iteration}"
    if moment == "last save":
        last = checkpoint_path(job.directory, ITERATIONS)
        wait(lambda: last.exists() or job.ended, RUN_SECONDS)
        return "after the last save"
    delay = rng.uniform(0, 1)
    time.sleep(delay)
    return f"{delay:.1f} s after iteration {iteration}"


def watch(job: Job, kind: Kind, before: tuple[int, int], begun: float) -> tuple[str, float]:
    """Wait until the job has ended; its outcome, and the seconds until it ended or continued."""
    sessions, at = before

    def continues() -> bool:
        if kind.unharmed and job.sessions <= max(1, sessions):
            return job.iteration > at
        return job.sessions > sessions and job.iteration > job.resumed_from

    def past() -> float:
        return time.monotonic() - begun

    if not wait(lambda: job.ended or continues(), HUNG_SECONDS):
        return "hung", past()
    seconds, continued = past(), continues()
    if not wait(lambda: job.ended, RUN_SECONDS):
        return "hung", past()
    if any(job.statuses):
        return "ended", past() if continued else seconds
    return ("went on" if kind.unharmed else "recovered"), seconds


def judge(trial: Trial, kind: Kind, reference: Path, so_far: Record) -> Record:
    """Resume the run if it is not finished, and compare it with the reference."""
    job = trial.job
    left = len(job.processes())
    problems = [f"{left} processes were left"] if so_far["outcome"] == "hung" else []
    job.end()
    last = checkpoint_path(job.directory, ITERATIONS)
    complete = last.exists() and job.statuses == [0] * len(job.agents)
    if complete and kind.stops:
        problems.append("ran to the end")
    if kind.unharmed and not complete:
        problems.append("did not continue")
    resumed = None
    if not complete:
        trial.heal()
        job.resume()
        wait(lambda: job.ended, RUN_SECONDS)
        if job.statuses != [0] * len(job.agents):
            problems.append(f"the resumed run ended with {job.statuses}")
        resumed = job.resumed_from
        if kind.loses_nothing and resumed < so_far["iteration"]:
            problems.append(f"iterations {resumed + 1} to {so_far['iteration']} were lost")
    if so_far["outcome"] == "ended" and so_far["seconds"] > kind.within:
        problems.append(f"ended after more than {kind.within:.0f} s")
    problems += [*trial.problems, *misses(trial, kind)]
    differs = differences(job.directory, reference)
    return {"resumed_from": resumed, "equal": not differs, "problems": problems + differs}


def differences(directory: Path, reference: Path) -> list[str]:
    """The differences between two finished runs, as text."""
    try:
        ours, theirs = (load(checkpoint_path(one, ITERATIONS)) for one in (directory, reference))
    except UserError as error:
        return [str(error)]
    names = ("model", "optimizer", "scaler", "iteration", "validated")
    found = [f"{name} differs" for name in names if not equal(ours[name], theirs[name])]
    if scalars(directory) != scalars(reference):
        found.append("scalars.jsonl differs")
    return found


def shared_memory() -> set[str]:
    """The files of torch and Python in shared memory that no living process has mapped."""
    kinds = ("torch_", "sem.", "psm_", "mp-")
    found = {path.name for path in SHARED_MEMORY.iterdir() if path.name.startswith(kinds)}
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            found -= set(re.findall(r"/dev/shm/(\S+)", maps.read_text()))
        except OSError:
            continue  # it has ended in the meantime
    return found


def equal(one: object, other: object) -> bool:
    """Whether two values are equal bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and one == other


def scalars(directory: Path) -> list[str]:
    """The lines of scalars.jsonl that must repeat."""
    lines = (directory / "scalars.jsonl").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if '"train/' in line or '"val/' in line]


if __name__ == "__main__":
    main()

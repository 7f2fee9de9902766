"""Tests whether killed runs lose anything: kill -9 at random moments, resume, compare.

    python tools/faults/kill_resume.py --trials 20

The reference is an undisturbed run of 20 iterations: ResNet-18 on drawn scenes, with dropout,
augmentation, 2 workers, Lookahead in the middle of its cycle and a checkpoint every 3 iterations.
Each trial starts the same run and kills its whole process group, every other trial inside a save;
one trial in four is killed again while it resumes. After each kill every checkpoint must be intact,
and all that were reported as saved must exist. In the end the last checkpoint must equal the
reference's byte for byte (weights, optimizer, slow weights, everything), and so must all lines of
`scalars.jsonl` except those of speed. Prints a line of JSON for each trial and a summary; exits
with 1 if anything was lost. On two cores a trial takes half a minute. Unix only.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ITERATIONS, EVERY = 20, 3
CONFIG = """
AMP: false
DATA: {{ROOT: {root}/scenes, TOKENIZER_MODEL: {root}/vocabulary.model, VOCAB_SIZE: 110,
  IMAGE_CROP_SIZE: 64}}
MODEL:
  VISUAL: {{NAME: "torchvision::resnet18", FEATURE_SIZE: 512}}
  TEXTUAL: {{NAME: "transdec_postnorm::L1_H32_A2_F64", DROPOUT: 0.1}}
  DECODER: {{BEAM_SIZE: 2, MAX_DECODING_STEPS: 8}}
OPTIM: {{BATCH_SIZE: 8, CNN_LR: 0.05, LR: 0.01, WARMUP_STEPS: 3, NUM_ITERATIONS: {iterations},
  LOOKAHEAD: {{USE: true, STEPS: 7}}}}
"""


@dataclass(frozen=True)
class Run:
    """A run's directory, and the command that starts or resumes it."""

    config: Path
    directory: Path

    def start(self) -> "subprocess.Popen[bytes]":
        """Start the command in a new process group."""
        words = ["pretrain", "--config", self.config, "--serialization-dir", self.directory]
        words += ["--checkpoint-every", str(EVERY), "--log-every", "1", "--cpu-workers", "2"]
        if (self.directory / "config.yaml").exists():
            words += ["--resume-from", "latest"]
        with (self.directory.parent / f"{self.directory.name}.console").open("ab") as console:
            return subprocess.Popen(
                [sys.executable, "-m", "virtex", *words],
                start_new_session=True,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def finish(self) -> None:
        """Run to the end."""
        status = self.start().wait()
        if status:
            console = self.directory.parent / f"{self.directory.name}.console"
            raise SystemExit(f"the run ended with status {status}:\n{console.read_text()[-3000:]}")

    @property
    def partial_file(self) -> Path | None:
        """The temporary file of a running or interrupted save."""
        return next(self.directory.glob(".checkpoint_*.partial*"), None)

    def iterations(self) -> list[int]:
        """The iterations logged so far, over all sessions."""
        path = self.directory / "log_rank0.txt"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [int(number) for number in re.findall(r"INFO iteration +(\d+)/", text)]

    def reported(self) -> set[str]:
        """The checkpoints that the log reports as saved."""
        path = self.directory / "log_rank0.txt"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return set(re.findall(r"saved .*(checkpoint_\d+\.pth)\n", text))

    def result(self) -> tuple[str, list[str]]:
        """A digest of the last checkpoint, and the lines of scalars that must repeat."""
        with (self.directory / f"checkpoint_{ITERATIONS}.pth").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        lines = (self.directory / "scalars.jsonl").read_text(encoding="utf-8").splitlines()
        return digest, [line for line in lines if '"speed/' not in line]


@dataclass(frozen=True)
class Kill:
    """When a process was killed."""

    iteration: int
    inside_save: bool


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs, resume them, compare.")
    parser.add_argument("--trials", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        config = prepare(root)
        reference = Run(config, root / "reference")
        seconds = time_of_training(reference)
        expected = reference.result()
        print(json.dumps({"reference_training_seconds": round(seconds, 1)}), flush=True)
        failed = kills = inside = 0
        for trial in range(arguments.trials):
            rng = random.Random(f"{arguments.seed} {trial}")
            run = Run(config, root / f"trial_{trial}")
            killed, faults = interrupted(run, rng, seconds, in_save=trial % 2 == 0)
            if not faults:
                run.finish()
                faults = differences(run.result(), expected)
            line = {
                "trial": trial,
                "killed_at_iterations": [kill.iteration for kill in killed],
                "inside_saves": [kill.inside_save for kill in killed],
                "identical": not faults,
                "faults": faults,
            }
            print(json.dumps(line), flush=True)
            failed += bool(faults)
            kills += len(killed)
            inside += sum(kill.inside_save for kill in killed)
            shutil.rmtree(run.directory)
    summary = {"trials": arguments.trials, "kills": kills, "inside_saves": inside, "failed": failed}
    print(json.dumps({"benchmark": "kill_resume", **summary}))
    sys.exit(1 if failed else 0)


def prepare(root: Path) -> Path:
    """Create scenes, a vocabulary and a configuration under `root`; returns its path."""
    captions = root / "scenes" / "annotations" / "captions_train2017.json"
    drawn = ["--train", "64", "--val", "10", "--size", "64", "--only", "coco"]
    vocabulary = ["--output", root / "vocabulary.model", "--vocab-size", "110"]
    for words in (
        ["synthesize", root / "scenes", *drawn],
        ["tokenizer", captions, *vocabulary],
    ):
        subprocess.run(
            [sys.executable, "-m", "virtex", *words], check=True, stdout=subprocess.DEVNULL
        )
    config = root / "run.yaml"
    config.write_text(CONFIG.format(root=root, iterations=ITERATIONS), encoding="utf-8")
    return config


def time_of_training(run: Run) -> float:
    """Run to the end; returns the seconds since the directory's first file appeared."""
    process = run.start()
    while not (run.directory / "config.yaml").exists() and process.poll() is None:
        time.sleep(0.005)
    begin = time.monotonic()
    process.wait()
    if process.returncode:
        run.finish()  # shows why
    return time.monotonic() - begin


def interrupted(
    run: Run, rng: random.Random, seconds: float, *, in_save: bool
) -> tuple[list[Kill], list[str]]:
    """Start `run` and kill it once or twice; returns the kills, and the damage they did."""
    killed: list[Kill] = []
    faults: list[str] = []
    for _ in range(2 if rng.random() < 0.25 else 1):
        kill = kill_once(run, rng, seconds, in_save)
        if kill is not None:
            killed.append(kill)
        faults += damage(run)
    return killed, faults


def kill_once(run: Run, rng: random.Random, seconds: float, in_save: bool) -> Kill | None:
    """Start, kill the group at a random moment, and wait; None if the run ended before."""
    process = run.start()
    begun = len(run.iterations())
    if in_save:
        save = rng.randrange(1, ITERATIONS // EVERY)
        wait(process, lambda: len(run.iterations()) - begun >= EVERY * (save - 1))
        earlier = run.partial_file  # of an earlier kill, until the run removes it
        wait(process, lambda: run.partial_file not in (None, earlier))
        time.sleep(rng.uniform(0, 0.2))
    else:
        wait(process, (run.directory / "config.yaml").exists)
        time.sleep(rng.uniform(0, seconds))
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if ended:
        return None
    return Kill(max(run.iterations(), default=0), run.partial_file is not None)


def wait(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    """Return when `condition()` holds or the process has ended."""
    while not condition() and process.poll() is None:
        time.sleep(0.001)


def damage(run: Run) -> list[str]:
    """The problems with the checkpoints of a killed run."""
    from virtex.checkpoints.file import checkpoint_iteration, checkpoints, load
    from virtex.errors import UserError

    faults = []
    present = checkpoints(run.directory)
    missing = run.reported() - {path.name for path in present}
    faults += [f"{name} was saved but does not exist" for name in sorted(missing)]
    for path in present:
        try:
            state = load(path)
        except UserError as error:
            faults.append(str(error))
            continue
        if state["iteration"] != checkpoint_iteration(path):
            faults.append(f"{path.name} holds iteration {state['iteration']}")
    return faults


def differences(got: tuple[str, list[str]], expected: tuple[str, list[str]]) -> list[str]:
    """The differences between two results, as text."""
    faults = []
    if got[0] != expected[0]:
        faults.append("the last checkpoint differs")
    if got[1] != expected[1]:
        pairs = zip_longest(got[1], expected[1])
        line = next(a for a, b in pairs if a != b)
        faults.append(f"scalars.jsonl differs: {line}")
    return faults


if __name__ == "__main__":
    main()

"""`virtex quickstart`: synthetic data, pretraining and evaluation, command by command.

A step whose result exists is not run again, and an interrupted pretraining is resumed.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import local_path
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.config.schema import Config

_CONFIG = Path("configs/scenes/bicaptioning.yaml")
_RESUME = ("--resume-from", "latest")


@dataclass(frozen=True)
class _Step:
    """A command line of `virtex`, and the file that shows that it has been done."""

    title: str
    arguments: tuple[str | Path, ...]
    result: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex quickstart`."""
    parser.add_argument(
        "directory", type=local_path, help="directory for the scenes, the vocabulary and the run"
    )
    parser.add_argument(
        "--config",
        type=local_path,
        default=_CONFIG,
        metavar="FILE",
        help="YAML configuration (default: %(default)s)",
    )
    parser.add_argument(
        "--config-override",
        nargs="*",
        default=[],
        metavar="KEY VALUE",
        help="settings that override the YAML file, such as OPTIM.NUM_ITERATIONS 300",
    )
    parser.add_argument(
        "--train", type=int, default=12000, help="number of training scenes (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the steps that are not done yet; the last one prints the table."""
    from virtex.build.model import load_config

    if not arguments.config.is_file():
        raise UserError(f"no configuration {arguments.config}; run this in a clone of the project")
    directory = arguments.directory
    overrides = [
        *("DATA.ROOT", str(directory / "scenes")),
        *("DATA.TOKENIZER_MODEL", str(directory / "vocabulary.model")),
        *arguments.config_override,
    ]
    config = load_config(arguments.config, overrides)
    begin = time.monotonic()
    steps = _steps(directory, config, arguments, overrides)
    _check_same(directory, steps)
    for step in steps[:-1]:
        if step.result.exists():
            print(f"\n{step.title}: {step.result} exists already", flush=True)
        else:
            _run(step)
    # The report is quick, and the person wants to see it.
    _run(steps[-1])
    minutes = (time.monotonic() - begin) / 60
    print(
        f"\nEverything lies in {directory}, after {minutes:.1f} minutes:\n"
        f"  {directory}/report/captions.png     held-out scenes with their captions\n"
        f"  {directory}/report/captions.jsonl   all of them, judged\n"
        f"  {directory}/run                     checkpoints, log, scalars.jsonl, curves\n"
        f"Curves:  {Path(sys.executable).parent}/tensorboard --logdir {directory}/run"
    )
    return 0


def _steps(
    directory: Path, config: "Config", arguments: argparse.Namespace, overrides: list[str]
) -> list[_Step]:
    scenes, vocabulary = directory / "scenes", directory / "vocabulary.model"
    run_directory = directory / "run"
    last = run_directory / f"checkpoint_{config.optim.num_iterations}.pth"
    begun = (run_directory / "config.yaml").exists()
    captions = scenes / "annotations" / "captions_train2017.json"
    return [
        _Step(
            "Draw scenes",
            (
                *("synthesize", scenes, "--train", str(arguments.train)),
                *("--size", "64", "--max-objects", "2", "--only", "coco", "--only", "imagefolder"),
            ),
            scenes,
        ),
        _Step(
            "Train a vocabulary",
            (
                *("tokenizer", captions, "--output", vocabulary),
                *("--vocab-size", str(config.data.vocab_size)),
            ),
            vocabulary,
        ),
        _Step(
            "Pretrain",
            (
                *("pretrain", "--config", arguments.config, "--serialization-dir", run_directory),
                *("--checkpoint-every", "550", "--keep-recent", "2"),
                *(_RESUME if begun else ()),
                *("--config-override", *overrides),
            ),
            last,
        ),
        _Step(
            "Caption held-out scenes, compare features",
            (
                *("evaluate-scenes", "--checkpoint", last, "--scenes", scenes),
                *("--output", directory / "report"),
            ),
            directory / "report",
        ),
    ]


def _check_same(directory: Path, steps: list[_Step]) -> None:
    """Refuse to mix results of other settings; note those of a first call in `quickstart.json`."""
    now = [[str(word) for word in step.arguments if word not in _RESUME] for step in steps]
    path = directory / "quickstart.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != now:
        raise UserError(
            f"{directory} holds a quickstart with other settings; give another directory, or "
            "remove this one"
        )
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def _run(step: _Step) -> None:
    words = [str(word) for word in step.arguments]
    print(f"\n{step.title}:\n$ virtex {' '.join(words)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "virtex", *words], check=False).returncode
    if status:
        raise RunError(f"{step.title}: `virtex {words[0]}` ended with status {status}; see above")

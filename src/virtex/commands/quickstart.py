"""`virtex quickstart`: synthetic data, pretraining and evaluation, command by command.

A step whose result exists is not run again, and an interrupted pretraining is resumed.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import add_config_arguments, add_int, local_path
from virtex.commands.subcommand import run_subcommand
from virtex.errors import RunError, UserError
from virtex.files import write_whole

if TYPE_CHECKING:
    from virtex.config.schema import Config

_CONFIG = Path("scenes/bicaptioning")
_RESUME = ("--resume-from", "latest")


@dataclass(frozen=True)
class _Step:
    """A command line of `virtex`, and the file or directory that exists once it is done."""

    title: str
    arguments: tuple[object, ...]
    result: Path

    @property
    def words(self) -> list[str]:
        return [str(argument) for argument in self.arguments]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex quickstart`."""
    parser.add_argument(
        "directory",
        type=local_path,
        metavar="DIR",
        help="directory for the scenes, the vocabulary and the run",
    )
    add_config_arguments(parser, default=_CONFIG)
    add_int(parser, "--train", "number of training scenes", default=12000)


def run(arguments: argparse.Namespace) -> int:
    """Run the steps that are not done yet; the last one prints the table."""
    from virtex.build.model import load_config

    directory = arguments.directory
    overrides = [
        *("DATA.ROOT", str(directory / "scenes")),
        *("DATA.TOKENIZER_MODEL", str(directory / "vocabulary.model")),
        *arguments.config_override,
    ]
    config = load_config(arguments.config, overrides)
    start = time.monotonic()
    steps = _steps(directory, config, arguments, overrides)
    _check_same(directory, steps)
    for step in steps:
        if step.result.exists() and step is not steps[-1]:
            print(f"\n{step.title}: {step.result} exists already", flush=True)
        else:
            _run(step)
    minutes = (time.monotonic() - start) / 60
    print(
        f"\nAll results are in {directory}, after {minutes:.1f} minutes:\n"
        f"  {directory}/report/captions.png     held-out scenes with their captions\n"
        f"  {directory}/report/captions.jsonl   all captions, and whether each is true\n"
        f"  {directory}/run                     checkpoints, log, scalars.jsonl, curves\n"
        f"Curves:  {Path(sys.executable).parent}/tensorboard --logdir {directory}/run"
    )
    return 0


def _steps(
    directory: Path, config: "Config", arguments: argparse.Namespace, overrides: list[str]
) -> list[_Step]:
    scenes, vocabulary = directory / "scenes", directory / "vocabulary.model"
    run_directory, report = directory / "run", directory / "report"
    last = run_directory / f"checkpoint_{config.optim.num_iterations}.pth"
    captions = scenes / "annotations" / "captions_train2017.json"
    return [
        _Step(
            "Draw scenes",
            (
                *("synthesize", scenes, "--train", arguments.train),
                *("--val", min(500, arguments.train)),
                *("--evaluation-train", min(1200, arguments.train)),
                *("--evaluation-val", min(600, arguments.train)),
                *("--size", 64, "--max-objects", 2, "--only", "coco", "--only", "imagefolder"),
            ),
            scenes,
        ),
        _Step(
            "Train a vocabulary",
            (
                *("tokenizer", captions, "--output", vocabulary),
                *("--vocab-size", config.data.vocab_size),
            ),
            vocabulary,
        ),
        _Step(
            "Pretrain",
            (
                *("pretrain", "--config", arguments.config, "--serialization-dir", run_directory),
                *("--checkpoint-every", 550, "--keep-recent", 2),
                *(_RESUME if (run_directory / "config.yaml").exists() else ()),
                *("--config-override", *overrides),
            ),
            last,
        ),
        _Step(
            "Caption held-out scenes and compare features",
            ("evaluate", "scenes", "--checkpoint", last, "--data", scenes, "--output", report),
            report,
        ),
    ]


def _check_same(directory: Path, steps: list[_Step]) -> None:
    """Store the steps in `quickstart.json`; raises `UserError` if it holds others."""
    now = [[word for word in step.words if word not in _RESUME] for step in steps]
    path = directory / "quickstart.json"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != now:
        raise UserError(
            f"{directory} holds a quickstart with other settings; give another directory, or "
            "remove this one"
        )
    write_whole(path, (json.dumps(now, indent=1) + "\n").encode())


def _run(step: _Step) -> None:
    print(f"\n{step.title}:")
    status = run_subcommand(step.words)
    if status:
        raise RunError(
            f"{step.title}: `virtex {step.words[0]}` ended with status {status}; see above"
        )

"""Tests that every published configuration trains: a few iterations with the published command.

    python tools/published_configs.py --root datasets/coco --output runs/published_configs

DATA_ROOT is a directory in COCO's layout; a vocabulary of `--vocab-size` pieces is trained on its
captions. Each configuration runs in its own process, one after another, and is validated and saved
like any run; its checkpoint is then deleted (up to 1.5 GB), its log and curves are kept.
`results.jsonl` in `--output` gets a JSON line for each run; runs recorded there with the same
settings are skipped, so that an interrupted command can be repeated. Prints these lines and a final
table; exits with 1 if any configuration failed. With the defaults it takes half an hour on two idle
cores. It shows that every model trains, not how well: the rates only just reach their peak, which
is meant for 256 images.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from virtex.build.model import build_objective
from virtex.config import loading as settings
from virtex.config.schema import Config

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIGS = REPOSITORY / "src" / "virtex" / "configs"
SHOWN_OF_A_FAILURE = 2000


@dataclass(frozen=True)
class Settings:
    """The settings of all runs."""

    root: Path
    output: Path
    vocab_size: int
    iterations: int
    batch_size: int

    @property
    def vocabulary(self) -> Path:
        """The path of the vocabulary trained on the captions of `root`."""
        return self.output / f"vocabulary_{self.vocab_size}.model"

    @property
    def identity(self) -> dict[str, object]:
        """The settings that must be equal for a result to remain valid."""
        return {
            "data": self.root.name,
            "vocab_size": self.vocab_size,
            "iterations": self.iterations,
            "batch_size": self.batch_size,
        }

    def overrides(self, config: Path) -> list[str]:
        """KEY VALUE pairs on top of a published configuration."""
        pairs: dict[str, object] = {
            "DATA.ROOT": self.root,
            "OPTIM.NUM_ITERATIONS": self.iterations,
            "OPTIM.WARMUP_STEPS": self.iterations - 1,
            "OPTIM.BATCH_SIZE": self.batch_size,
        }
        # Categories of objects are their own vocabulary.
        if settings.load(Config, config).model.name != "multilabel_classification":
            pairs["DATA.TOKENIZER_MODEL"] = self.vocabulary
            pairs["DATA.VOCAB_SIZE"] = self.vocab_size
        return [str(word) for pair in pairs.items() for word in pair]


def published_configs() -> list[Path]:
    """The base and the ablations of the paper."""
    return [*CONFIGS.glob("_base_*.yaml"), *sorted(CONFIGS.glob("*_ablations/*.yaml"))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train every published configuration a little.")
    parser.add_argument("--root", type=Path, required=True, metavar="DATA_ROOT")
    parser.add_argument("--output", type=Path, default=Path("runs/published_configs"))
    parser.add_argument("--iterations", type=int, default=5, help="2 or more (default: 5)")
    parser.add_argument("--batch-size", type=int, default=8, help="images (default: 8)")
    parser.add_argument("--vocab-size", type=int, default=1000, help="pieces (default: 1000)")
    arguments = parser.parse_args()
    if arguments.iterations < 2:
        parser.error("--iterations must be 2 or more")
    shared = Settings(
        root=arguments.root.resolve(),
        output=arguments.output.resolve(),
        vocab_size=arguments.vocab_size,
        iterations=arguments.iterations,
        batch_size=arguments.batch_size,
    )
    make_vocabulary(shared)
    done = finished(shared)
    lines = []
    for config in published_configs():
        name = str(config.relative_to(CONFIGS))
        if name not in done:
            done[name] = trained(name, shared)
            with (shared.output / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[name]) + "\n")
        print(json.dumps(done[name]), flush=True)
        lines.append(done[name])
    print(table(lines))
    sys.exit(1 if any(line["exit_status"] for line in lines) else 0)


def make_vocabulary(shared: Settings) -> None:
    """Train the vocabulary with `virtex tokenizer`, unless it exists."""
    if shared.vocabulary.exists():
        return
    captions = shared.root / "annotations" / "captions_train2017.json"
    words = ["tokenizer", captions, "--output", shared.vocabulary]
    subprocess.run(
        [sys.executable, "-m", "virtex", *words, "--vocab-size", str(shared.vocab_size)],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def finished(shared: Settings) -> dict[str, dict[str, Any]]:
    """The results of earlier calls by configuration: without failures, with these settings."""
    path = shared.output / "results.jsonl"
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        line["config"]: line
        for line in lines
        if line["exit_status"] == 0 and {**line, **shared.identity} == line
    }


def trained(name: str, shared: Settings) -> dict[str, object]:
    """Train one configuration from the start; returns its line of results."""
    config = CONFIGS / name
    directory = shared.output / name.removesuffix(".yaml")
    if directory.exists():  # an earlier call was interrupted, failed or had other settings
        shutil.rmtree(directory)
    overrides = shared.overrides(config)
    status = train(config, directory, overrides)
    line: dict[str, object] = {
        "benchmark": "published_configs",
        "config": name,
        "exit_status": status,
        "parameters_m": round(parameters(config, overrides) / 1e6, 1),
    }
    if status == 0:
        line |= figures(directory)
    for checkpoint in directory.glob("checkpoint_*.pth"):
        checkpoint.unlink()
    return line | {
        **shared.identity,
        "device": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def train(config: Path, directory: Path, overrides: list[str]) -> int:
    """Run the published command on the CPU; prints the end of the output if it fails."""
    command = [
        *(sys.executable, str(REPOSITORY / "scripts" / "pretrain_virtex.py")),
        *("--config", str(config), "--serialization-dir", str(directory), "--log-every", "1"),
        *("--config-override", *overrides),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(done.stdout[-SHOWN_OF_A_FAILURE:], file=sys.stderr, flush=True)
    return done.returncode


def parameters(config: Path, overrides: list[str]) -> int:
    """The number of parameters as trained here, with a smaller vocabulary than published."""
    with torch.device("meta"):
        model = build_objective(settings.load(Config, config, overrides))
    return sum(parameter.numel() for parameter in model.parameters())


def figures(directory: Path) -> dict[str, object]:
    """Losses and speed of a run, from its curves."""
    lines = (directory / "scalars.jsonl").read_text(encoding="utf-8").splitlines()
    scalars = [json.loads(line) for line in lines]
    config = settings.load(Config, directory / "config.yaml")

    def curve(key: str) -> list[float]:
        return [line[key] for line in scalars if key in line]

    losses, rates = curve("train/loss"), curve("speed/images_per_second")
    return {
        "first_loss": round(losses[0], 4),
        "last_loss": round(losses[-1], 4),
        "validation_loss": round(curve("val/loss")[-1], 4),
        "seconds_per_iteration": round(config.optim.batch_size / statistics.median(rates), 2),
        "peak_memory_gb": round(max(curve("speed/memory_gb")), 2),
    }


def table(lines: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    columns = {
        "config": "config",
        "parameters_m": "parameters (M)",
        "first_loss": "first loss",
        "last_loss": "last loss",
        "seconds_per_iteration": "s / iteration",
        "exit_status": "exit status",
    }
    rows = [[str(line.get(key, "–")) for key in columns] for line in lines]
    divider = ["---"] * len(columns)
    return "\n".join(f"| {' | '.join(row)} |" for row in [[*columns.values()], divider, *rows])


if __name__ == "__main__":
    main()

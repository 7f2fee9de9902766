"""Sweeps: one configuration, trained on several percentages of the images with several seeds.

The directory of a sweep holds `sweep.yaml`, the settings that its runs share, and a directory of
each run, `percentage_10_seed_0`.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.run_directory import LATEST, holds_run
from virtex.config import loading as settings
from virtex.config.schema import EARLIER_RUN, Config
from virtex.errors import UserError

SHARED = "sweep.yaml"
VARIED = {"DATA.USE_PERCENTAGE": "--percentages", "RANDOM_SEED": "--seeds"}


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep, in `directory`; `last` is the checkpoint that it ends with."""

    percentage: float
    seed: int
    directory: Path
    last: Path

    @property
    def finished(self) -> bool:
        """Whether all its iterations are done."""
        return self.last.exists()

    @property
    def arguments(self) -> list[str]:
        """What follows `virtex pretrain` for this run as it stands: it begins or goes on."""
        begun = holds_run(self.directory)
        return [
            *("--config", str(self.directory.parent / SHARED)),
            *("--serialization-dir", str(self.directory)),
            *(("--resume-from", LATEST) if begun else ()),
            *("--config-override", *_varied(self.percentage, self.seed)),
        ]


def plan(
    config: Path,
    overrides: Sequence[str],
    directory: Path,
    *,
    percentages: Sequence[float],
    seeds: Sequence[int],
) -> tuple[Config, list[SweepRun]]:
    """The first run's settings, and all runs: every percentage with the first seed, and so on.

    Raises UserError for repeated figures, and for settings that any of the runs would refuse.
    """
    _check_different("--percentages", [percentage_text(value) for value in percentages])
    _check_different("--seeds", [str(seed) for seed in seeds])
    for key, flag in VARIED.items():
        if key in overrides[::2]:
            raise UserError(f"--config-override sets {key}, which {flag} says; remove it")
    configs, runs = [], []
    for seed in seeds:
        for percentage in percentages:
            own = settings.load(Config, config, [*overrides, *_varied(percentage, seed)])
            run = directory / f"percentage_{percentage_text(percentage)}_seed_{seed}"
            last = checkpoint.checkpoint_path(run, own.optim.num_iterations)
            configs.append(own)
            runs.append(SweepRun(percentage, seed, run, last))
    return configs[0], runs


def claim(directory: Path, config: Config) -> None:
    """Make the directory a sweep's by writing `sweep.yaml`, which its runs take settings from.

    Raises UserError if it holds a run, or a sweep whose settings differ in more than percentage
    and seed, so that a sweep may grow but is never mixed.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--directory {directory} is a file; give a directory")
    if holds_run(directory):
        raise UserError(f"--directory {directory} holds a run; give one for the sweep alone")
    path = directory / SHARED
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(settings.dump(config), encoding="utf-8")
        return
    before = settings.flat(settings.load(Config, path, context=EARLIER_RUN))
    now = settings.flat(config)
    changes = [
        f"{key} was {before[key]!r}, is {now[key]!r}"
        for key in now
        if before[key] != now[key] and key not in VARIED
    ]
    if changes:
        raise UserError(
            f"--directory {directory} holds a sweep with other settings: {'; '.join(changes)}; "
            "give another directory, or remove this one"
        )


def slurm_script(
    runs: Sequence[SweepRun],
    flags: Sequence[str],
    *,
    python: str,
    working_directory: Path,
    own_port: bool,
) -> str:
    """A bash script whose array task i does the i-th run: as a sweep of one, which knows how far
    the run is.

    `flags` are for `virtex pretrain`. With `own_port` runs on one machine do not meet each other.
    """
    directory = runs[0].directory.parent
    command = [
        *(python, "-m", "virtex", "sweep", "--config", str(directory / SHARED)),
        *("--directory", str(directory)),
    ]
    percentages = [percentage_text(run.percentage) for run in runs]
    port = '--dist-url "tcp://127.0.0.1:$((20000 + SLURM_JOB_ID % 20000))"'
    return f"""\
#!/usr/bin/env bash
#SBATCH --job-name=virtex-sweep
#SBATCH --array=0-{len(runs) - 1}
# One task is one run. Submitted again, it passes over what is done and goes on with the rest.
set -euo pipefail
task=${{SLURM_ARRAY_TASK_ID:?is not set: submit this script with sbatch}}
percentages=({" ".join(percentages)})
seeds=({" ".join(str(run.seed) for run in runs)})
cd {shlex.quote(str(working_directory))}
exec {shlex.join(command)} \\
    --percentages "${{percentages[task]}}" --seeds "${{seeds[task]}}" \\
    -- {" ".join([shlex.join(flags), *([port] if own_port else [])])}
"""


def percentage_text(percentage: float) -> str:
    """As short as it reads back the same: 10 for 10.0."""
    return repr(percentage).removesuffix(".0")


def _varied(percentage: float, seed: int) -> list[str]:
    return ["DATA.USE_PERCENTAGE", percentage_text(percentage), "RANDOM_SEED", str(seed)]


def _check_different(flag: str, values: Sequence[str]) -> None:
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise UserError(f"{flag} names {', '.join(repeated)} more than once; keep one of each")

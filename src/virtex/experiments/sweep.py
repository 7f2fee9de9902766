"""Sweeps: one configuration, trained on several percentages of the images with several seeds.

The directory of a sweep holds `sweep.yaml`, the settings that its runs share, and a directory for
each run, such as `percentage_10_seed_0`.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtex.build.model import load_config
from virtex.checkpoints.file import checkpoint_path
from virtex.checkpoints.run_directory import CONFIG, LATEST, holds_run
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.files import write_whole

SHARED = "sweep.yaml"
VARIED = {"DATA.USE_PERCENTAGE": "--percentages", "RANDOM_SEED": "--seeds"}

_FOUND = {
    *("DATA.VOCAB_SIZE", "DATA.UNK_INDEX", "DATA.SOS_INDEX", "DATA.EOS_INDEX", "DATA.MASK_INDEX"),
    "MODEL.VISUAL.FEATURE_SIZE",
}
"""Settings that may be left out; earlier versions wrote their defaults instead."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep, in `directory`.

    `iterations` is its length; None if that follows from `OPTIM.NUM_EPOCHS` and the data.
    """

    percentage: float
    seed: int
    directory: Path
    iterations: int | None

    @property
    def finished(self) -> bool:
        """Whether all its iterations are done."""
        iterations, resolved = self.iterations, self.directory / CONFIG
        if iterations is None and resolved.exists():
            iterations = settings.load(Config, resolved).optim.iterations
        return iterations is not None and checkpoint_path(self.directory, iterations).exists()

    @property
    def arguments(self) -> list[str]:
        """The arguments of `virtex pretrain` that start this run, or resume it if it exists."""
        started = holds_run(self.directory)
        return [
            *("--config", str(self.directory.parent / SHARED)),
            *("--serialization-dir", str(self.directory)),
            *(("--resume-from", LATEST) if started else ()),
            *("--config-override", *_varied(self.percentage, self.seed)),
        ]


def plan(
    config: Path,
    overrides: Sequence[str],
    directory: Path,
    *,
    percentages: Sequence[float],
    seeds: Sequence[int],
    checkpoint_every: int,
) -> tuple[Config, list[SweepRun]]:
    """The settings of the first run, and all runs: each percentage with the first seed, and so on.

    Raises UserError for repeated values, and for settings that any of the runs would reject.
    """
    _check_unique("--percentages", [percentage_text(value) for value in percentages])
    _check_unique("--seeds", [str(seed) for seed in seeds])
    for key, flag in VARIED.items():
        if key in overrides[::2]:
            raise UserError(f"--config-override sets {key}, which {flag} sets too; remove {key}")
    configs, runs = [], []
    for seed in seeds:
        for percentage in percentages:
            own = load_config(
                config,
                [*overrides, *_varied(percentage, seed)],
                checkpoint_every=checkpoint_every,
            )
            run = directory / f"percentage_{percentage_text(percentage)}_seed_{seed}"
            configs.append(own)
            runs.append(SweepRun(percentage, seed, run, own.optim.num_iterations))
    return configs[0], runs


def reserve(directory: Path, config: Config) -> None:
    """Reserve the directory for a sweep by writing `sweep.yaml`, the configuration of its runs.

    Raises UserError if it holds a run, or a sweep whose settings differ in more than percentage
    and seed: a sweep may grow but is never mixed with another.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"--directory {directory} is a file; give a directory")
    if holds_run(directory):
        raise UserError(
            f"--directory {directory} holds a run; give another directory for the sweep"
        )
    path = directory / SHARED
    if not path.exists():
        write_whole(path, settings.dump(config).encode())
        return
    before = settings.flat(settings.load(Config, path))
    now = settings.flat(config)
    changes = [
        f"{key} was {before[key]!r}, is {now[key]!r}"
        for key in now
        if before[key] != now[key]
        and key not in VARIED
        # A value that is left out is found by each run, which checks one that is given.
        and not (key in _FOUND and None in (before[key], now[key]))
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
    """A bash script whose array task i does the i-th run: a sweep of one run, which can be resumed.

    `flags` are for `virtex pretrain`. With `own_port`, each run has its own rendezvous port, so
    that runs on one machine do not collide.
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
# One task is one run. Submit the script again to continue the runs that are not finished.
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
    """The shortest text with the same value: 10 for 10.0."""
    return repr(percentage).removesuffix(".0")


def _varied(percentage: float, seed: int) -> list[str]:
    return ["DATA.USE_PERCENTAGE", percentage_text(percentage), "RANDOM_SEED", str(seed)]


def _check_unique(flag: str, values: Sequence[str]) -> None:
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise UserError(f"{flag} {', '.join(repeated)}: give each value only once")

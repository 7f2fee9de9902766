"""`virtex sweep`: one configuration on several percentages of the images, with several seeds.

Each run is a `virtex pretrain` of its own. Finished runs are skipped and interrupted ones are
resumed; a run that fails does not stop the others.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands import pretrain
from virtex.commands.arguments import add_config_arguments, local_path, non_negative_int
from virtex.commands.subcommand import run_subcommand
from virtex.distributed.signals import STOPPED, Stopped
from virtex.errors import RunError, UserError
from virtex.files import write_whole

if TYPE_CHECKING:
    from virtex.experiments.sweep import SweepRun

_REFUSED = (
    *("--config", "--config-override", "--serialization-dir", "--resume-from"),
    *pretrain.INIT_FLAGS,
)
"""Flags of `virtex pretrain` that a sweep sets, or that contradict resuming."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex sweep`."""
    add_config_arguments(parser)
    parser.add_argument(
        "--directory",
        type=local_path,
        required=True,
        metavar="DIR",
        help="directory for the runs, such as DIR/percentage_10_seed_0",
    )
    parser.add_argument(
        "--percentages",
        type=_percentage,
        nargs="+",
        required=True,
        metavar="P",
        help="percentages of the training images to use",
    )
    parser.add_argument(
        "--seeds",
        type=non_negative_int,
        nargs="+",
        default=[0],
        metavar="N",
        help="random seeds; every percentage is run with every seed (default: 0)",
    )
    parser.add_argument(
        "--slurm",
        type=local_path,
        metavar="FILE",
        help="write an sbatch script for a job array with one task per run, and run nothing",
    )
    parser.add_argument(
        "pretrain_flags",
        nargs="*",
        metavar="-- FLAG",
        help="further flags of `virtex pretrain`, such as --cpu-workers 4",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the settings of all runs, then do one after another, or write the script."""
    from virtex.experiments import sweep

    flags = arguments.pretrain_flags
    pretrain_arguments = pretrain.parse(
        ["--config", "_", *flags], _REFUSED, " in a sweep; remove it"
    )
    config, runs = sweep.plan(
        arguments.config,
        arguments.config_override,
        arguments.directory,
        percentages=arguments.percentages,
        seeds=arguments.seeds,
        checkpoint_every=pretrain_arguments.checkpoint_every,
    )
    sweep.reserve(arguments.directory, config)
    if arguments.slurm is None:
        return _run_all(runs, flags)
    one_machine = pretrain_arguments.num_machines == 1
    several = pretrain_arguments.num_gpus_per_machine > 1
    script = sweep.slurm_script(
        runs,
        flags,
        python=sys.executable,
        working_directory=Path.cwd(),
        own_port=several and one_machine and not any("--dist-url" in flag for flag in flags),
    )
    return _write_script(arguments.slurm, script, len(runs))


def _run_all(runs: "Sequence[SweepRun]", flags: Sequence[str]) -> int:
    results: dict[str, str] = {}
    for number, run in enumerate(runs, start=1):
        name = run.directory.name
        if run.finished:
            results[name] = "already done"
            continue
        print(f"\n[{number}/{len(runs)}] {name}:")
        status = run_subcommand(["pretrain", *flags, *run.arguments])
        if status == STOPPED:
            raise Stopped(f"{name} was stopped and saved; repeat the command to resume it")
        ended = f"status {status}" if status > 0 else f"ended by signal {-status}"
        results[name] = f"failed: {ended}" if status else "done"
    width = max(map(len, results))
    directory = runs[0].directory.parent
    print(f"\nRuns in {directory}:")
    for name, result in results.items():
        print(f"  {name:<{width}}  {result}")
    sys.stdout.flush()
    failed = sum(result.startswith("failed") for result in results.values())
    if failed:
        raise RunError(
            f"{failed} of {len(runs)} runs failed, see above; fix the cause and repeat the "
            "command, which skips finished runs"
        )
    if len(runs) > 1:
        print(f"Compare them:  virtex compare {shlex.quote(str(directory))}/percentage_*")
    return 0


def _write_script(path: Path, script: str, runs: int) -> int:
    if path.is_dir():
        raise UserError(f"--slurm {path} is a directory; name a file in it")
    if path.exists() and path.read_bytes() != script.encode():
        raise UserError(
            f"--slurm {path} exists with other contents; remove it, or choose another name"
        )
    write_whole(path, script.encode())
    print(
        f"{path} runs the sweep as a job array of {runs} tasks. Nothing has been started.\n"
        f"Submit it:  sbatch {shlex.quote(str(path))}\n"
        "Give the options of your site before its name, such as --time=24:00:00 --gpus=1. If it\n"
        "is submitted again, finished runs are skipped and the others are resumed."
    )
    return 0


def _percentage(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 100")
    return value

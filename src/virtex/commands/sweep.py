"""`virtex sweep`: one configuration on several percentages of the images, with several seeds.

Each run is a `virtex pretrain` of its own. Finished runs are skipped and interrupted ones are
resumed; a run that fails does not stop the others.
"""

import argparse
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands import pretrain
from virtex.commands.arguments import local_path, non_negative_int
from virtex.distributed.signals import STOPPED, Stopped
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.experiments.sweep import SweepRun

_OWN = {
    "config": "--config",
    "config_override": "--config-override",
    "serialization_dir": "--serialization-dir",
    "resume_from": "--resume-from",
    "init_from": "--init-from",
}
"""Flags of `virtex pretrain` that a sweep sets, or that contradict resuming."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex sweep`."""
    parser.add_argument(
        "--config", type=local_path, required=True, metavar="FILE", help="YAML configuration"
    )
    parser.add_argument(
        "--config-override",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="settings that override the YAML file in all runs",
    )
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
        help="further flags of virtex pretrain, such as --cpu-workers 4",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the settings of all runs, then do one after another, or write the script."""
    from virtex.experiments import sweep as sweeping

    how = pretrain.parse(
        ["--config", "_", *arguments.pretrain_flags],
        _OWN,
        " is set by the sweep itself or not supported in a sweep; remove it",
    )
    config, runs = sweeping.plan(
        arguments.config,
        arguments.config_override,
        arguments.directory,
        percentages=arguments.percentages,
        seeds=arguments.seeds,
    )
    try:
        sweeping.reserve(arguments.directory, config)
        if arguments.slurm is not None:
            several = how.num_gpus_per_machine > 1 and how.num_machines == 1
            own_port = several and not any("--dist-url" in f for f in arguments.pretrain_flags)
            script = sweeping.slurm_script(
                runs,
                arguments.pretrain_flags,
                python=sys.executable,
                working_directory=Path.cwd(),
                own_port=own_port,
            )
            return _write_script(arguments.slurm, script, len(runs))
    except OSError as error:
        raise RunError(f"writing {error.filename} failed: {error.strerror}") from error
    return _run_all(runs, arguments.pretrain_flags)


def _run_all(runs: "Sequence[SweepRun]", flags: Sequence[str]) -> int:
    results: dict[str, str] = {}
    failed = []
    for number, one in enumerate(runs, start=1):
        name = one.directory.name
        if one.finished:
            results[name] = "already done"
            continue
        words = ["pretrain", *flags, *one.arguments]
        print(f"\n[{number}/{len(runs)}] {name}:\n$ virtex {shlex.join(words)}", flush=True)
        status = _run([sys.executable, "-m", "virtex", *words])
        if status == STOPPED:
            raise Stopped(f"{name} was stopped and saved; repeat the command to resume it")
        ended = f"status {status}" if status > 0 else f"ended by signal {-status}"
        results[name] = f"failed: {ended}" if status else "done"
        if status:
            failed.append(name)
    width = max(map(len, results))
    directory = runs[0].directory.parent
    print(f"\nRuns in {directory}:")
    for name, result in results.items():
        print(f"  {name:<{width}}  {result}")
    sys.stdout.flush()
    if failed:
        raise RunError(
            f"{len(failed)} of {len(runs)} runs failed, see above; fix the cause and repeat the "
            "command, which skips finished runs"
        )
    if len(runs) > 1:
        print(f"Compare them:  virtex compare {shlex.quote(str(directory))}/percentage_*")
    return 0


def _run(command: Sequence[str]) -> int:
    """The exit status of a command; an interrupt, and SIGTERM too, ends it and then this one."""
    with subprocess.Popen(command) as process:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            return process.wait()
        except KeyboardInterrupt:
            # A terminal interrupts both; a signal to this process alone is passed on. Not killed,
            # so that a run of several processes can end them.
            process.terminate()
            process.wait()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)


def _write_script(path: Path, script: str, runs: int) -> int:
    if path.is_dir():
        raise UserError(f"--slurm {path} is a directory; name a file in it")
    if path.exists() and path.read_bytes() != script.encode():
        raise UserError(f"--slurm {path} exists and is another script; remove it or name a new one")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    print(
        f"{path} runs the sweep as a job array of {runs} tasks. Nothing has been started.\n"
        f"Submit it:  sbatch {shlex.quote(str(path))}\n"
        "with your site's options before its name, such as --time=24:00:00 --gpus=1. When it is\n"
        "submitted again, finished runs are skipped and the others are resumed."
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

"""`virtex pretrain`: from a YAML file and images on disk to checkpoints, curves and captions."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    Arguments,
    add_config_arguments,
    add_int,
    local_path,
    positive_int,
)
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.config.schema import Config
    from virtex.training.setup import PretrainOptions

_RENAMED = {"--meet-within": "--rendezvous-timeout", "--stuck-after": "--watchdog-timeout"}
"""Flags by their names of an earlier release, which are accepted and not shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex pretrain`."""
    add_config_arguments(parser.add_argument_group("configuration"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--serialization-dir",
        type=local_path,
        metavar="DIR",
        help="directory for checkpoints and logs (default: runs/NAME, where NAME is the name of "
        "the YAML file)",
    )
    add_saving_arguments(output)
    checkpoint = add_start_arguments(parser)
    checkpoint.add_argument(
        "--init-from",
        type=local_path,
        metavar="FILE",
        help="checkpoint whose weights a new run starts from",
    )
    add_process_arguments(parser)


def add_saving_arguments(output: Arguments) -> None:
    """Add how often a run saves and logs."""
    add_int(
        output,
        "--checkpoint-every",
        "validate and save a checkpoint every N iterations",
        default=2000,
    )
    add_int(
        output,
        "--keep-recent",
        "keep only the N newest checkpoints, or all if N is 0 (default: keep the newest 3 and one "
        "every 25,000 iterations)",
        minimum=0,
    )
    add_int(output, "--log-every", "log training progress every N iterations", default=20)


def add_start_arguments(parser: argparse.ArgumentParser) -> Arguments:
    """Add how a run resumes; returns the group of arguments that exclude `--resume-from`."""
    start = parser.add_argument_group("starting point")
    checkpoint = start.add_mutually_exclusive_group()
    checkpoint.add_argument(
        "--resume-from",
        type=_checkpoint,
        metavar="FILE",
        help="checkpoint to resume from; `latest` is the newest one in --serialization-dir",
    )
    start.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="resume even if the image ids, captions or labels differ from those of the checkpoint",
    )
    return checkpoint


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the processes of a run, and the diagnosis of what goes wrong with them."""
    machines = parser.add_argument_group("distributed training")
    add_int(
        machines,
        "--num-gpus-per-machine",
        "number of GPUs per machine; 0 trains on the CPU",
        default=0,
        minimum=0,
    )
    add_int(machines, "--num-machines", "number of machines", default=1)
    add_int(
        machines, "--machine-rank", "rank of this machine, counted from 0", default=0, minimum=0
    )
    machines.add_argument(
        "--dist-url",
        type=_tcp_url,
        default="tcp://127.0.0.1:23456",
        metavar="URL",
        help="address at which the machine of rank 0 listens (default: %(default)s)",
    )
    add_int(
        machines,
        "--max-restarts",
        "restart all processes from the newest checkpoint up to N times if a process fails",
        default=0,
        minimum=0,
    )
    add_int(
        machines, "--cpu-workers", "number of data loader workers per process", default=0, minimum=0
    )
    diagnosis = parser.add_argument_group("diagnosis")
    diagnosis.add_argument(
        "--preflight",
        action="store_true",
        help="check the environment of all processes, report on each of them, and exit",
    )
    add_int(
        diagnosis,
        "--rendezvous-timeout",
        "how long to wait for all processes to join",
        default=300,
        metavar="SECONDS",
    )
    add_int(
        diagnosis,
        "--watchdog-timeout",
        "end the job if a process makes no progress for this long, and report where each process "
        "is",
        default=900,
        metavar="SECONDS",
    )
    for earlier, flag in _RENAMED.items():
        diagnosis.add_argument(
            earlier,
            dest=_attribute(flag),
            type=positive_int,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    add_int(
        diagnosis,
        "--debug-rank",
        "open the debugger in the process of rank R before the first iteration, at breakpoint() "
        "and on an error, while the other processes wait",
        minimum=0,
        metavar="R",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make all cheap checks, then start the processes."""
    from virtex.distributed.signals import stop_requests

    # Signals are recorded from here on, as the imports below take seconds.
    with stop_requests():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    return launch_run(arguments, checked_options(arguments, processes=processes_of(arguments)))


def processes_of(arguments: argparse.Namespace) -> int:
    """The number of processes that the arguments ask for; raises `UserError`."""
    machine_processes = max(1, arguments.num_gpus_per_machine)
    if arguments.machine_rank >= arguments.num_machines:
        raise UserError(
            f"--machine-rank {arguments.machine_rank} must be less than --num-machines "
            f"{arguments.num_machines}"
        )
    count: int = machine_processes * arguments.num_machines
    return count


def launch_run(arguments: argparse.Namespace, options: "PretrainOptions") -> int:
    """Start the processes of a run, and wait for them; returns the exit status."""
    from virtex.distributed.launch import LaunchConfig, launch
    from virtex.training.run import pretrain

    return launch(
        pretrain,
        options,
        LaunchConfig(
            processes=max(1, arguments.num_gpus_per_machine),
            count=arguments.num_machines,
            rank=arguments.machine_rank,
            url=arguments.dist_url,
            max_restarts=arguments.max_restarts,
            rendezvous_timeout=arguments.rendezvous_timeout,
            watchdog_timeout=options.timeouts.watchdog_timeout,
        ),
    )


def checked_options(arguments: argparse.Namespace, *, processes: int) -> "PretrainOptions":
    """Return the options of a run of `processes`, or of as many as a launcher has started.

    Raises `UserError` for mistakes that can be seen before any process is started.
    """
    from virtex.build.model import load_config

    return options_of(
        arguments,
        load_config(
            arguments.config,
            arguments.config_override,
            checkpoint_every=arguments.checkpoint_every,
        ),
        arguments.serialization_dir or Path("runs") / arguments.config.stem,
        overridden=arguments.config_override[::2],
        processes=processes,
    )


def options_of(
    arguments: argparse.Namespace,
    config: "Config",
    directory: Path,
    *,
    overridden: Sequence[str],
    processes: int,
    command: str = "virtex pretrain",
) -> "PretrainOptions":
    """As `checked_options`, for a configuration and the settings given on the command line.

    `command` names the command in messages.
    """
    from virtex.config.schema import check_processes
    from virtex.distributed.environment import read_environment

    process = read_environment()
    if process.size > 1 or process.agent:
        processes = process.size
    check_processes(config, processes)

    from virtex.distributed.debugging import this_terminal
    from virtex.distributed.world import Timeouts
    from virtex.training.setup import PretrainOptions, check

    debug_rank = arguments.debug_rank
    if debug_rank is not None and debug_rank >= processes:
        raise UserError(
            f"--debug-rank {debug_rank} must be less than the number of processes, {processes}"
        )
    patience = math.inf if debug_rank is not None else 1.0
    gpus = arguments.num_gpus_per_machine
    options = PretrainOptions(
        config=config,
        directory=directory,
        overridden=tuple(overridden),
        resume_from=arguments.resume_from,
        init_from=arguments.init_from,
        gpus=gpus > 0,
        workers=arguments.cpu_workers,
        checkpoint_every=arguments.checkpoint_every,
        keep_recent=arguments.keep_recent,
        log_every=arguments.log_every,
        timeouts=Timeouts(arguments.rendezvous_timeout, patience * arguments.watchdog_timeout),
        accept_changed_data=arguments.accept_changed_data,
        preflight_only=arguments.preflight,
        debug_rank=debug_rank,
        terminal=None if debug_rank is None else this_terminal(),
        command=command,
    )
    # srun may show each process only its own GPU.
    check(options, gpus_per_machine=min(gpus, 1) if process.size > 1 else gpus)
    return options


def parse(words: Sequence[str], refused: Sequence[str], reason: str) -> argparse.Namespace:
    """Parse the arguments that follow `--` of another command; exits if they are invalid.

    Raises `UserError` with `reason` for a flag of `refused`.
    """
    parser = argparse.ArgumentParser(prog="virtex pretrain", add_help=False)
    add_arguments(parser)
    defaults = parser.parse_args(["--config", "_"])
    arguments = parser.parse_args(words)
    for flag in refused:
        name = _attribute(flag)
        if getattr(arguments, name) != getattr(defaults, name):
            raise UserError(f"{flag} after -- is not allowed{reason}")
    return arguments


def _attribute(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _checkpoint(text: str) -> str:
    """Parse `latest` or a local path."""
    return str(local_path(text))


def _tcp_url(text: str) -> str:
    match = re.fullmatch(r"tcp://[^:/\s]+:([0-9]{1,5})", text)
    if match is None or not 0 < int(match[1]) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form tcp://HOST:PORT")
    return text

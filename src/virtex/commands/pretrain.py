"""`virtex pretrain`: from a YAML file and images on disk to checkpoints, curves and captions."""

import argparse
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import local_path, non_negative_int, positive_int
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.training.setup import PretrainOptions

_RENAMED = {"--meet-within": "--rendezvous-timeout", "--stuck-after": "--watchdog-timeout"}
"""Flags by their names of an earlier release, which are accepted and not shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex pretrain`."""
    what = parser.add_argument_group("configuration")
    what.add_argument(
        "--config", type=local_path, required=True, metavar="FILE", help="YAML configuration"
    )
    what.add_argument(
        "--config-override",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="settings that override the YAML file, such as OPTIM.BATCH_SIZE 64",
    )
    files = parser.add_argument_group("output")
    files.add_argument(
        "--serialization-dir",
        type=local_path,
        metavar="DIR",
        help="directory for checkpoints and logs (default: runs/NAME, where NAME is the name of "
        "the YAML file)",
    )
    files.add_argument(
        "--checkpoint-every",
        type=positive_int,
        default=2000,
        metavar="N",
        help="validate and save a checkpoint every N iterations (default: %(default)s)",
    )
    files.add_argument(
        "--keep-recent",
        type=non_negative_int,
        metavar="N",
        help="keep only the N newest checkpoints, or all if N is 0 (default: keep the newest 3 "
        "and one every 25,000 iterations)",
    )
    files.add_argument(
        "--log-every",
        type=positive_int,
        default=20,
        metavar="N",
        help="log training progress every N iterations (default: %(default)s)",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--resume-from",
        type=_checkpoint,
        metavar="FILE",
        help="resume from this checkpoint; `latest` is the newest in the serialization directory",
    )
    start.add_argument(
        "--init-from",
        type=local_path,
        metavar="FILE",
        help="start a new run from the weights of a checkpoint",
    )
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="resume even if the image ids, captions or categories differ from those of the "
        "checkpoint",
    )
    machines = parser.add_argument_group("distributed training")
    machines.add_argument(
        "--num-gpus-per-machine",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="number of GPUs per machine; 0 trains on the CPU (default: %(default)s)",
    )
    machines.add_argument(
        "--num-machines",
        type=positive_int,
        default=1,
        metavar="N",
        help="number of machines (default: %(default)s)",
    )
    machines.add_argument(
        "--machine-rank",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="rank of this machine, from 0 (default: %(default)s)",
    )
    machines.add_argument(
        "--dist-url",
        type=_tcp_url,
        default="tcp://127.0.0.1:23456",
        metavar="URL",
        help="address at which the machine of rank 0 listens (default: %(default)s)",
    )
    machines.add_argument(
        "--max-restarts",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="restart all processes from the newest checkpoint up to N times if a process fails "
        "(default: %(default)s)",
    )
    machines.add_argument(
        "--cpu-workers",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="number of data loader workers per process (default: %(default)s)",
    )
    trouble = parser.add_argument_group("diagnosis")
    trouble.add_argument(
        "--preflight",
        action="store_true",
        help="check the environment of all processes, report on each of them, and exit",
    )
    trouble.add_argument(
        "--rendezvous-timeout",
        type=positive_int,
        default=300,
        metavar="SECONDS",
        help="how long to wait for all processes to join (default: %(default)s)",
    )
    trouble.add_argument(
        "--watchdog-timeout",
        type=positive_int,
        default=900,
        metavar="SECONDS",
        help="end the job when a process makes no progress for this long, and report where each "
        "process is (default: %(default)s)",
    )
    for earlier, flag in _RENAMED.items():
        trouble.add_argument(
            earlier,
            dest=flag.removeprefix("--").replace("-", "_"),
            type=positive_int,
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
    trouble.add_argument(
        "--debug-rank",
        type=non_negative_int,
        metavar="R",
        help="open the debugger in the process of rank R before the first iteration, at "
        "breakpoint() and on an error, while the other processes wait",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check everything that is cheap to check, then start the processes."""
    from virtex.distributed.signals import stop_requests

    # From here on, as the imports alone take seconds.
    with stop_requests():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    machine_processes = max(1, arguments.num_gpus_per_machine)
    if arguments.machine_rank >= arguments.num_machines:
        raise UserError(
            f"--machine-rank {arguments.machine_rank}: ranks of {arguments.num_machines} machines "
            f"are 0 to {arguments.num_machines - 1}"
        )
    options = checked_options(arguments, processes=machine_processes * arguments.num_machines)

    from virtex.distributed.launch import LaunchConfig, launch
    from virtex.training.run import pretrain

    return launch(
        pretrain,
        options,
        LaunchConfig(
            processes=machine_processes,
            count=arguments.num_machines,
            rank=arguments.machine_rank,
            url=arguments.dist_url,
            max_restarts=arguments.max_restarts,
            rendezvous_timeout=arguments.rendezvous_timeout,
            watchdog_timeout=options.timeouts.watchdog_timeout,
        ),
    )


def checked_options(arguments: argparse.Namespace, *, processes: int) -> "PretrainOptions":
    """The options that the arguments give, of `processes` unless a launcher has started them.

    Raises `UserError` for what can be seen to be wrong before any process is started.
    """
    from virtex.build.model import load_config
    from virtex.config.schema import check_processes
    from virtex.distributed.environment import read_environment

    config = load_config(arguments.config, arguments.config_override)
    process = read_environment()
    if process.size > 1 or process.agent:
        processes = process.size
    check_processes(config, processes)
    directory = arguments.serialization_dir
    if directory is None:
        directory = Path("runs") / arguments.config.stem

    from virtex.distributed.debugging import this_terminal
    from virtex.distributed.world import Timeouts
    from virtex.training.setup import PretrainOptions, check

    debug_rank = arguments.debug_rank
    if debug_rank is not None and debug_rank >= processes:
        raise UserError(f"--debug-rank {debug_rank}: ranks are 0 to {processes - 1}")
    patience = math.inf if debug_rank is not None else 1.0
    options = PretrainOptions(
        config=config,
        directory=directory,
        overridden=tuple(arguments.config_override[::2]),
        resume_from=arguments.resume_from,
        init_from=arguments.init_from,
        gpus=arguments.num_gpus_per_machine > 0,
        workers=arguments.cpu_workers,
        checkpoint_every=arguments.checkpoint_every,
        keep_recent=arguments.keep_recent,
        log_every=arguments.log_every,
        timeouts=Timeouts(arguments.rendezvous_timeout, patience * arguments.watchdog_timeout),
        accept_changed_data=arguments.accept_changed_data,
        preflight_only=arguments.preflight,
        debug_rank=debug_rank,
        terminal=None if debug_rank is None else this_terminal(),
    )
    # srun may show each process its own GPU alone.
    gpus = arguments.num_gpus_per_machine
    check(options, gpus_per_machine=min(gpus, 1) if process.size > 1 else gpus)
    return options


def parse(words: Sequence[str], refused: Mapping[str, str], why: str) -> argparse.Namespace:
    """The arguments that follow `--` of another command; exits for those that are invalid.

    Raises `UserError` with `why` for a flag of `refused`, which has each one's name and flag.
    """
    parser = argparse.ArgumentParser(prog="virtex pretrain", add_help=False)
    add_arguments(parser)
    none = parser.parse_args(["--config", "_"])
    given = parser.parse_args(words)
    for name, flag in refused.items():
        if getattr(given, name) != getattr(none, name):
            raise UserError(f"{flag} after --{why}")
    return given


def _checkpoint(text: str) -> str:
    """`latest`, or a local path."""
    return str(local_path(text))


def _tcp_url(text: str) -> str:
    match = re.fullmatch(r"tcp://[^:/\s]+:([0-9]{1,5})", text)
    if match is None or not 0 < int(match[1]) < 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form tcp://HOST:PORT")
    return text

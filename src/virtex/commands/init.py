"""`virtex init`: the settings of a first run on a user's data, with their reasons."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import local_path
from virtex.commands.layout_arguments import add_layout_arguments, given_settings
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.config.schema import Config
    from virtex.doctor.measure import MemoryFit
    from virtex.doctor.proposal import Proposal
    from virtex.doctor.scale import Machine

_MOST_WORKERS = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex init`."""
    parser.add_argument(
        "data",
        metavar="DATA",
        help="directory or table with images and captions; nothing is written there",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        default=Path("run.yaml"),
        metavar="FILE",
        help="settings to write, for `virtex pretrain --config`; the vocabulary is written beside "
        "them, as FILE with the extension .vocabulary.model (default: %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite the files if they exist already"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the settings, and write nothing"
    )
    parser.add_argument(
        "--no-measure",
        action="store_true",
        help="do not measure the memory and the speed of training steps, which takes about 20 "
        "seconds; the batch then follows from the number of images alone",
    )
    layout = parser.add_argument_group("layout of DATA, where it is not what is found")
    layout.add_argument(
        "--format",
        choices=("coco", "table", "folder", "shards"),
        help="format of DATA, for a directory that holds several",
    )
    add_layout_arguments(layout)


def run(arguments: argparse.Namespace) -> int:
    """Look at the data, write the files and print what to do next; raises `UserError`."""
    output: Path = arguments.output.absolute()
    vocabulary = output.with_name(f"{output.stem}.vocabulary.model")
    root = Path(arguments.data).expanduser().absolute()
    _check_output(arguments, output, vocabulary, root)

    # Imported here, so that `--help` answers at once.
    from virtex.doctor.layout import detect_data
    from virtex.doctor.proposal import PRESET, propose
    from virtex.doctor.run_file import run_file
    from virtex.files import write_whole

    given = given_settings(arguments)
    if arguments.format is not None:
        given["DATA.FORMAT"] = arguments.format
    detected = detect_data(arguments.data, given)
    machine = _machine()
    measure = None if arguments.no_measure else _measure
    proposal = propose(detected, vocabulary, machine, measure)
    heading = (
        f"A first run on {arguments.data}, as `virtex init` proposes it. Each setting has its"
        " reason; change what you know better. What is not here is as in the configuration of the"
        f" package that _BASE_ names: `virtex config {PRESET}` prints it."
    )
    text = run_file(proposal.choices, PRESET, heading)
    if arguments.dry_run:
        print(text, end="")
        return 0
    write_whole(vocabulary, proposal.vocabulary)
    write_whole(output, text.encode())
    _report(proposal, arguments.output, vocabulary, machine)
    return 0


def _check_output(
    arguments: argparse.Namespace, output: Path, vocabulary: Path, root: Path
) -> None:
    if arguments.dry_run:
        return
    if output.is_dir():
        raise UserError(f"--output {arguments.output} is a directory; name a file in it")
    if root.is_dir() and output.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{arguments.output} would lie in {arguments.data}, and nothing is written into data;"
            " change to another directory, or give one as --output ../run.yaml"
        )
    existing = [str(path) for path in (output, vocabulary) if path.exists()]
    if existing and not arguments.force:
        raise UserError(
            f"{' and '.join(existing)} exist already; give --force to overwrite, or another"
            " --output"
        )


def _machine() -> "Machine":
    import torch

    from virtex.distributed.cpu_threads import available_cores
    from virtex.doctor.scale import Machine

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(gpus, available_cores())


def _measure(config: "Config") -> "MemoryFit | None":
    from virtex.doctor.measure import default_device, measure_memory

    print("measuring the memory of training steps", file=sys.stderr, flush=True)
    try:
        return measure_memory(config, default_device())
    except RunError as error:
        raise RunError(f"{error}; --no-measure leaves this out") from error


def _report(proposal: "Proposal", output: Path, vocabulary: Path, machine: "Machine") -> None:
    from virtex.doctor.scale import choose_interval

    print(f"images      {proposal.training:,} for training, {proposal.validation:,} for validation")
    print(f"settings    {output}, each with its reason")
    print(f"vocabulary  {vocabulary}")
    print(f"run         {proposal.iterations:,} iterations{_duration(proposal.seconds)}")
    print("\nPlease check:")
    for note in proposal.notes:
        print(f"- {note}")
    name = shlex.quote(str(output))
    flags = f"--checkpoint-every {choose_interval(proposal.iterations)}"
    if machine.gpus:
        workers = max(1, min(_MOST_WORKERS, machine.cores // machine.gpus))
        flags += f" --num-gpus-per-machine {machine.gpus} --cpu-workers {workers}"
    print(f"\nNext:\n  virtex doctor {name}\n  virtex pretrain --config {name} {flags}")


def _duration(seconds: float | None) -> str:
    """The estimated time of a run; nothing if it was not measured."""
    if seconds is None:
        return ""
    minutes = max(seconds / 60, 1)
    shown = f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.0f} hours"
    return f", about {shown} of training on this machine"

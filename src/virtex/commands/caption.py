"""`virtex caption`: captions for picture files."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    add_checkpoint_arguments,
    add_device_argument,
    add_image_limits,
    add_quiet_argument,
    choose_device,
    image_limits,
    load_checkpoint,
    local_path,
    non_negative_int,
    positive_int,
)
from virtex.commands.progress import Progress
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.data.images import BadImage
    from virtex.inference.results import Form

_FORMS: tuple["Form", ...] = ("console", "jsonl", "json", "csv", "tsv")
_ENDINGS: dict[str, "Form"] = {
    "": "console",
    ".txt": "console",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which pictures, which model, how, where to."""
    parser.add_argument(
        "paths",
        type=local_path,
        nargs="+",
        metavar="PATH",
        help="image files, and directories: all files in them, at any depth, but hidden ones",
    )
    add_checkpoint_arguments(parser)
    add_image_limits(parser.add_argument_group("image files"))
    _add_decoding(parser)
    _add_output(parser)
    parser.add_argument(
        "--batch-size",
        type=positive_int,
        default=32,
        metavar="N",
        help="pictures at once (default: %(default)s)",
    )
    add_device_argument(parser)
    add_quiet_argument(parser)
    parser.epilog = (
        "Files that give no picture are named on stderr and skipped, and the exit status is 1; "
        "in JSON and in tables they have an error in place of captions. A caption's score is the "
        "sum of its tokens' log-probabilities: nearer to 0 is likelier."
    )


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("captions (default: as the checkpoint's configuration says)")
    group.add_argument("--decoder", choices=("beam_search", "nucleus_sampling"))
    group.add_argument("--beam-size", type=positive_int, metavar="N", help="of beam search")
    group.add_argument(
        "--nucleus-size",
        type=float,
        metavar="P",
        help="of nucleus sampling: probability, above 0 and at most 1, to sample from",
    )
    group.add_argument(
        "--seed",
        type=non_negative_int,
        metavar="N",
        help="of nucleus sampling: the same seed and picture, the same captions",
    )
    group.add_argument(
        "--top",
        type=positive_int,
        default=1,
        metavar="K",
        help="captions of each picture, best first (default: %(default)s)",
    )
    group.add_argument(
        "--max-length", type=positive_int, metavar="N", help="most tokens of a caption"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        choices=_FORMS,
        help="lines to read; an object a line, of path and captions of text and score; a list of "
        "these objects; or a row for each caption, with the columns path, caption, score and error "
        "(default: as --output ends, else console)",
    )
    group.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="results, written batch by batch (default: standard output)",
    )
    group.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="add to an --output of jsonl: pictures with captions in it are left out, by their "
        "path as it is written; those with an error are tried again",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, load the model, caption."""
    from virtex.data.sources.find_images import find_pictures, path_of
    from virtex.inference.results import take_up

    pictures = find_pictures(arguments.paths)
    bad = [picture for picture in pictures if not isinstance(picture, Path)]
    if len(bad) == len(pictures):
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in bad)
        raise UserError(f"there is nothing to caption: {reasons}")
    output: Path | None = arguments.output
    form = _form(arguments.format, output)
    _check_output(output, form, go_on=arguments.go_on)
    if output is not None and arguments.go_on:
        wanted = {str(path_of(picture)) for picture in pictures}
        done = take_up(output, wanted)
        pictures = [
            picture
            for picture in pictures
            if str(path_of(picture)) not in done and not _is_same(path_of(picture), output)
        ]
        print(f"{len(wanted & done):,} pictures have captions in {output}", file=sys.stderr)
        if not pictures:
            return 0
    skipped = _caption(arguments, pictures, form)
    if output is not None:
        captioned = len(pictures) - skipped
        print(f"captions of {captioned:,} pictures written to {output}", file=sys.stderr)
    if skipped:
        raise RunError(f"{skipped:,} of {len(pictures):,} could not be captioned; see above")
    return 0


def _caption(arguments: argparse.Namespace, pictures: "list[Path | BadImage]", form: "Form") -> int:
    """Load the model and caption; how many pictures were bad."""
    from virtex.inference.captioning import (
        Decoding,
        caption_pictures,
        decoding_strategy,
        write_captions,
    )

    device = choose_device(arguments.device)
    pretrained = load_checkpoint(arguments).to(device)
    pretrained = replace(pretrained, limits=image_limits(arguments))
    decoding = Decoding(
        decoder=arguments.decoder,
        beam_size=arguments.beam_size,
        nucleus_size=arguments.nucleus_size,
        seed=arguments.seed,
        top=arguments.top,
    )
    captioner = pretrained.captioner(decoding_strategy(pretrained.config, decoding))
    if arguments.max_length is not None:
        captioner = replace(captioner, max_tokens=arguments.max_length)
    batches = caption_pictures(
        pretrained, captioner, pictures, top=arguments.top, batch_size=arguments.batch_size
    )
    # A live line would run into the captions where both are on one terminal.
    quiet = arguments.quiet or (arguments.output is None and sys.stdout.isatty())
    with Progress("captions", len(pictures), "images", quiet=quiet) as progress:
        return write_captions(
            batches,
            pictures,
            arguments.output,
            form,
            advance=progress.advance,
            warn=progress.note,
        )


def _is_same(path: Path, output: Path) -> bool:
    """Whether a file found among the pictures is the output."""
    return path.name == output.name and path.resolve() == output.resolve()


def _form(wanted: "Form | None", output: Path | None) -> "Form":
    if wanted is not None:
        return wanted
    suffix = "" if output is None else output.suffix.lower()
    if suffix not in _ENDINGS:
        endings = ", ".join(filter(None, _ENDINGS))
        raise UserError(
            f"--output {output}: results are written to files that end in {endings}; choose one "
            "of them, or say what to write with --format"
        )
    return _ENDINGS[suffix]


def _check_output(output: Path | None, form: "Form", *, go_on: bool) -> None:
    if go_on and (output is None or form != "jsonl"):
        raise UserError(
            "--continue adds to results in a file of JSON lines; name it, as in --output FILE.jsonl"
        )
    if output is None:
        return
    if output.is_dir():
        raise UserError(f"--output {output} is a directory; name a file in it")
    if output.is_file() and not go_on:
        remedy = "give --continue to go on with it, or" if form == "jsonl" else "remove it, or"
        raise UserError(f"{output} exists; {remedy} name another --output")

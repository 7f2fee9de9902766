"""`virtex caption`: captions for image files."""

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
    """Add the arguments of `virtex caption`."""
    parser.add_argument(
        "paths",
        type=local_path,
        nargs="+",
        metavar="PATH",
        help="image files, or directories that are searched recursively; hidden files are ignored",
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
        help="number of images per batch (default: %(default)s)",
    )
    add_device_argument(parser)
    add_quiet_argument(parser)
    parser.epilog = (
        "Files that cannot be read are reported on stderr and skipped, and the exit status is 1. "
        "JSON and tables contain an error for each of them instead of captions. The score of a "
        "caption is the sum of the log-probabilities of its tokens; higher is more likely."
    )


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "decoding (the defaults are those of the checkpoint's configuration)"
    )
    group.add_argument(
        "--decoder", choices=("beam_search", "nucleus_sampling"), help="decoding method"
    )
    group.add_argument(
        "--beam-size", type=positive_int, metavar="N", help="number of beams in beam search"
    )
    group.add_argument(
        "--nucleus-size",
        type=float,
        metavar="P",
        help="cumulative probability for nucleus sampling, above 0 and at most 1",
    )
    group.add_argument(
        "--seed",
        type=non_negative_int,
        metavar="N",
        help="random seed for nucleus sampling; the captions of an image depend only on the seed "
        "and the image",
    )
    group.add_argument(
        "--top",
        type=positive_int,
        default=1,
        metavar="K",
        help="number of captions per image, best first (default: %(default)s)",
    )
    group.add_argument(
        "--max-length", type=positive_int, metavar="N", help="maximum number of tokens in a caption"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        choices=_FORMS,
        help="output format: text for reading (console), one JSON object per image with its path "
        "and captions (jsonl), a list of these objects (json), or one row per caption with the "
        "columns path, caption, score and error (csv, tsv); default: chosen by the suffix of "
        "--output, otherwise console",
    )
    group.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="file to write the results to, batch by batch (default: standard output)",
    )
    group.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="append to an existing --output in jsonl format: images that already have captions "
        "are skipped, and images with an error are tried again",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check what can be checked, load the model, caption."""
    from virtex.data.sources.find_images import find_images, path_of
    from virtex.inference.results import take_up

    images = find_images(arguments.paths)
    bad = [image for image in images if not isinstance(image, Path)]
    if len(bad) == len(images):
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in bad)
        raise UserError(f"there is nothing to caption: {reasons}")
    output: Path | None = arguments.output
    form = _form(arguments.format, output)
    _check_output(output, form, go_on=arguments.go_on)
    if output is not None and arguments.go_on:
        wanted = {str(path_of(image)) for image in images}
        done = take_up(output, wanted)
        images = [
            image
            for image in images
            if str(path_of(image)) not in done and not _is_same(path_of(image), output)
        ]
        print(f"{len(wanted & done):,} images have captions in {output}", file=sys.stderr)
        if not images:
            return 0
    skipped = _caption(arguments, images, form)
    if output is not None:
        captioned = len(images) - skipped
        print(f"captions of {captioned:,} images written to {output}", file=sys.stderr)
    if skipped:
        raise RunError(f"{skipped:,} of {len(images):,} could not be captioned; see above")
    return 0


def _caption(arguments: argparse.Namespace, images: "list[Path | BadImage]", form: "Form") -> int:
    """Load the model and caption; how many images were bad."""
    from virtex.inference.captioning import (
        Decoding,
        caption_images,
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
    batches = caption_images(
        pretrained, captioner, images, top=arguments.top, batch_size=arguments.batch_size
    )
    # A live line would run into the captions where both are on one terminal.
    quiet = arguments.quiet or (arguments.output is None and sys.stdout.isatty())
    with Progress("captions", len(images), "images", quiet=quiet) as progress:
        return write_captions(
            batches,
            images,
            arguments.output,
            form,
            advance=progress.advance,
            warn=progress.note,
        )


def _is_same(path: Path, output: Path) -> bool:
    """Whether a file found among the images is the output."""
    return path.name == output.name and path.resolve() == output.resolve()


def _form(wanted: "Form | None", output: Path | None) -> "Form":
    if wanted is not None:
        return wanted
    suffix = "" if output is None else output.suffix.lower()
    if suffix not in _ENDINGS:
        endings = ", ".join(filter(None, _ENDINGS))
        raise UserError(
            f"--output {output}: results are written to files that end in {endings}; choose one "
            "of them, or set --format"
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
        remedy = "give --continue to append to it, or" if form == "jsonl" else "remove it, or"
        raise UserError(f"{output} exists; {remedy} name another --output")

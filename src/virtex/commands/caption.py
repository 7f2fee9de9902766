"""`virtex caption`: captions for image files."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    CHECKPOINTS_OWN,
    add_checkpoint_arguments,
    add_device_argument,
    add_image_limits,
    add_int,
    add_pixel_arguments,
    add_quiet_argument,
    check_output,
    load_on_device,
    local_path,
)
from virtex.commands.progress import Progress
from virtex.errors import RunError, UserError

if TYPE_CHECKING:
    from virtex.data.images import BadImage
    from virtex.inference.results import Format

_FORMATS: dict[str, "Format"] = {
    "": "console",
    ".txt": "console",
    ".jsonl": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
}
"""By the suffix of `--output`."""


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
    images = parser.add_argument_group("image files")
    add_image_limits(images)
    add_pixel_arguments(images, CHECKPOINTS_OWN)
    _add_decoding(parser)
    _add_output(parser)
    add_int(parser, "--batch-size", "number of images per batch", default=32)
    add_device_argument(parser)
    add_quiet_argument(parser)
    parser.epilog = (
        "Files that cannot be read are reported on stderr and skipped, and the exit status is 1. "
        "JSON and tables contain an error for each of them instead of captions, except for the "
        "format coco. The score of a "
        "caption is the sum of the log-probabilities of its tokens; higher is more likely."
    )


def _add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "decoding (the defaults are those of the checkpoint's configuration)"
    )
    group.add_argument(
        "--decoder", choices=("beam_search", "nucleus_sampling"), help="decoding method"
    )
    add_int(group, "--beam-size", "number of beams in beam search")
    group.add_argument(
        "--nucleus-size",
        type=float,
        metavar="P",
        help="cumulative probability for nucleus sampling, above 0 and at most 1",
    )
    add_int(
        group,
        "--seed",
        "random seed for nucleus sampling; the captions of an image depend only on the seed and "
        "the image",
        minimum=0,
    )
    add_int(group, "--top", "number of captions per image, best first", default=1, metavar="K")
    add_int(group, "--max-length", "maximum number of tokens in a caption")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--format",
        choices=tuple(dict.fromkeys([*_FORMATS.values(), "coco"])),
        help="output format: text for reading (console), one JSON object per image with its path "
        "and captions (jsonl), a list of these objects (json), COCO's results, a JSON list of "
        "objects with image_id and caption (coco), or one row per caption with the columns path, "
        "caption, score and error (csv, tsv); default: chosen by the suffix of --output, otherwise "
        "console",
    )
    group.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="file to write the results to, batch by batch (default: standard output)",
    )
    group.add_argument(
        "--continue",
        dest="resume",
        action="store_true",
        help="append to an existing --output in jsonl format: images that already have captions "
        "are skipped, and images with an error are tried again",
    )


def run(arguments: argparse.Namespace) -> int:
    """Find the images, check the output, load the model and write the captions."""
    from virtex.data.sources.find_images import find_images, path_of
    from virtex.inference.results import load_finished

    images = find_images(arguments.paths)
    bad = [image for image in images if not isinstance(image, Path)]
    if len(bad) == len(images):
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in bad)
        raise UserError(f"there is nothing to caption: {reasons}")
    output: Path | None = arguments.output
    form = arguments.format or _format(output)
    _check_output(output, form, resume=arguments.resume)
    if form == "coco":
        _check_ids([path_of(image) for image in images], arguments.top)
    if output is not None and arguments.resume:
        wanted = {str(path_of(image)) for image in images}
        done = load_finished(output, wanted)
        images = [
            image
            for image in images
            if str(path_of(image)) not in done and not _is_same(path_of(image), output)
        ]
        print(f"{len(wanted & done):,} images already have captions in {output}", file=sys.stderr)
        if not images:
            return 0
    skipped = _caption(arguments, images, form)
    if output is not None:
        captioned = len(images) - skipped
        print(f"captions of {captioned:,} images written to {output}", file=sys.stderr)
    if skipped:
        raise RunError(f"{skipped:,} of {len(images):,} could not be captioned; see above")
    return 0


def _caption(arguments: argparse.Namespace, images: "list[Path | BadImage]", form: "Format") -> int:
    """Load the model and write the captions; returns the number of bad images."""
    from virtex.build.images import pixel_settings
    from virtex.data.pixel_sample import pixel_lines
    from virtex.inference.captioning import caption_images, decoding_strategy, write_captions

    pretrained = load_on_device(arguments)
    files = [image for image in images if isinstance(image, Path)]
    for line in pixel_lines(files, pixel_settings(pretrained.config.data), pretrained.limits):
        print(line, file=sys.stderr)
    strategy = decoding_strategy(
        pretrained.config,
        decoder=arguments.decoder,
        beam_size=arguments.beam_size,
        nucleus_size=arguments.nucleus_size,
        seed=arguments.seed,
        top=arguments.top,
    )
    captioner = pretrained.captioner(strategy)
    if arguments.max_length is not None:
        captioner = replace(captioner, max_tokens=arguments.max_length)
    batches = caption_images(
        pretrained, captioner, images, top=arguments.top, batch_size=arguments.batch_size
    )
    # On one terminal, a live line would be mixed with the captions.
    quiet = arguments.quiet or (arguments.output is None and sys.stdout.isatty())
    with Progress("captions", len(images), "images", quiet=quiet) as progress:
        return write_captions(
            batches, images, arguments.output, form, advance=progress.advance, warn=progress.note
        )


def _is_same(path: Path, output: Path) -> bool:
    """Whether a file found among the images is the output."""
    return path.name == output.name and path.resolve() == output.resolve()


def _format(output: Path | None) -> "Format":
    suffix = "" if output is None else output.suffix.lower()
    if suffix not in _FORMATS:
        suffixes = ", ".join(filter(None, _FORMATS))
        raise UserError(
            f"--output {output}: the format of the results is unknown; use a name that ends in "
            f"{suffixes}, or set --format"
        )
    return _FORMATS[suffix]


def _check_ids(paths: Sequence[Path], top: int) -> None:
    """Raise `UserError` unless COCO's results can have one caption for each image."""
    from virtex.inference.results import image_id

    if top > 1:
        raise UserError(f"--top {top}: --format coco has one caption per image; use jsonl or csv")
    seen: dict[int | str, Path] = {}
    for path in paths:
        other = seen.setdefault(image_id(path), path)
        if other is not path:
            raise UserError(
                f"{other} and {path} have the same image_id in --format coco, {image_id(path)!r}, "
                "which is the name of the file; caption them separately, or use jsonl or csv"
            )


def _check_output(output: Path | None, form: "Format", *, resume: bool) -> None:
    if resume and (output is None or form != "jsonl"):
        raise UserError(
            "--continue requires results in jsonl format; name their file, for example with "
            "--output captions.jsonl"
        )
    if output is not None:
        remedy = "give --continue to append to it" if form == "jsonl" else "remove it"
        check_output(output, None if resume else remedy)

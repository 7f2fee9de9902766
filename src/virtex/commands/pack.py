"""`virtex pack`: a data set as tar shards, which can be read faster than files, and remotely.

`OUTPUT/train` and `OUTPUT/val` hold `00000.tar`, `00000.index`, … and `shards.json`; train with
`DATA.FORMAT shards DATA.ROOT OUTPUT`.
"""

import argparse
import os
from functools import partial
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    add_image_limits,
    add_int,
    add_pixel_arguments,
    add_quiet_argument,
    image_limits,
    local_path,
    pixel_options,
    positive_int,
)
from virtex.commands.layout_arguments import add_layout_arguments, data_of
from virtex.commands.progress import Progress
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.data.pixel_values import PixelSettings
    from virtex.data.shards.pack import PackedShard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "source",
        type=local_path,
        metavar="SOURCE",
        help="root directory of the data set, or the table of all splits",
    )
    parser.add_argument(
        "output",
        type=local_path,
        metavar="OUTPUT",
        help="directory for the shards; packing resumes if it holds part of them",
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=("coco", "table", "folder"),
        required=True,
        help="format of SOURCE: a COCO directory, a directory with tables of image files and "
        "captions, or a directory with train/ and val/, which hold images with a text file of "
        "captions for each",
    )
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("train", "val"),
        default=["train", "val"],
        help="splits to pack (default: both)",
    )
    parser.add_argument(
        "--labels",
        choices=("captions", "categories"),
        default="captions",
        help="annotations of COCO to pack: captions, or object categories for multilabel "
        "classification (default: %(default)s)",
    )
    add_int(
        parser,
        "--samples-per-shard",
        "number of samples in each shard except the last one",
        default=10000,
    )
    add_layout_arguments(parser.add_argument_group("captions"))
    images = parser.add_argument_group("images")
    add_int(
        images,
        "--short-side",
        "downscale larger images so that their shorter side has this length, and store them as "
        "JPEG (default: copy the files unchanged)",
        metavar="PIXELS",
    )
    add_int(images, "--quality", "JPEG quality for --short-side, 1 to 100", default=90)
    images.add_argument(
        "--skip-bad",
        action="store_true",
        help="skip images that cannot be read, and report them, instead of stopping with an error",
    )
    add_image_limits(images)
    add_pixel_arguments(
        images, "for --short-side, a range found in a sample, the window of the file, and error"
    )
    images.add_argument(
        "--no-check",
        action="store_true",
        help="copy files without checking that they can be decoded",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=os.cpu_count(),
        metavar="N",
        help="number of worker processes (default: one per core)",
    )
    add_quiet_argument(parser)


def _pixel_settings(arguments: argparse.Namespace) -> "PixelSettings":
    from virtex.build.images import pixel_settings, with_pixel_options
    from virtex.config.schema import Config

    return pixel_settings(with_pixel_options(Config(), pixel_options(arguments)).data)


def _report(progress: Progress, shard: "PackedShard") -> None:
    for error in shard.bad:
        progress.note(f"skipped {error}")
    if shard.kept:
        progress.skip(shard.summary.samples)
    else:
        progress.advance(shard.summary.samples)


def run(arguments: argparse.Namespace) -> int:
    """Pack the splits and print a summary of each; raises `UserError`."""
    from virtex.build.sources import caption_records, category_records
    from virtex.data.shards.pack import PackJob, pack, with_sampled_range
    from virtex.data.shards.writer import Packing, Reduction

    if arguments.quality > 100:
        raise UserError(f"--quality {arguments.quality}: expected an integer from 1 to 100")
    if arguments.kind != "coco" and arguments.labels == "categories":
        raise UserError(
            f"--labels categories: data in the format --from {arguments.kind} have only captions; "
            "remove --labels"
        )
    reduction = (
        None if arguments.short_side is None else Reduction(arguments.short_side, arguments.quality)
    )
    pixels = _pixel_settings(arguments)
    with_categories = arguments.labels == "categories"
    packing = Packing(reduction, arguments.skip_bad, not arguments.no_check, with_categories)
    data = data_of(
        arguments,
        format=arguments.kind,
        root=str(arguments.source),
        on_bad_image="skip" if arguments.skip_bad else "error",
    )
    # All splits are opened before the first is packed, so that a mistake in any is found at once.
    opened = {
        split: category_records(data, split)
        if with_categories
        else (caption_records(data, split), None)
        for split in dict.fromkeys(arguments.split)
    }
    for split, (records, categories) in opened.items():
        job = PackJob(
            records=records,
            directory=arguments.output / split,
            packing=packing,
            samples_per_shard=arguments.samples_per_shard,
            categories=categories,
            workers=arguments.workers,
            limits=image_limits(arguments),
            pixels=pixels,
        )
        job, lines = with_sampled_range(job)
        pixels = job.pixels  # of the first split for both
        for line in (*records.report, *lines):
            print(f"{split}: {line}")
        with Progress(split, len(records), "images", quiet=arguments.quiet) as progress:
            done = pack(job, partial(_report, progress))
        rate = done.samples_written / max(done.seconds, 1e-6)
        print(
            f"{split}: {done.samples:,} samples in {done.shards} shards, "
            f"{done.tar_bytes / 1e6:,.1f} MB ({done.kept} shards kept, {done.excluded} samples "
            f"skipped), {done.seconds:.1f} s, {rate:.0f} images/s"
        )
    print(f"train on it with DATA.FORMAT shards DATA.ROOT {arguments.output}")
    return 0

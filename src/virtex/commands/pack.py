"""`virtex pack`: a data set as tar shards, which are read faster than files and from anywhere.

    virtex pack --from coco datasets/coco datasets/coco-shards --short-side 320

writes `OUTPUT/train/00000.tar`, `00000.index` and `shards.json`, and the same for `val`; train on
it by `DATA.FORMAT shards DATA.ROOT OUTPUT`.
"""

import argparse
import os

from virtex.commands.arguments import local_path, positive
from virtex.commands.image_limit_arguments import add_image_limits, image_limits
from virtex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "source", type=local_path, metavar="SOURCE", help="the data set, as DATA.ROOT would name it"
    )
    parser.add_argument(
        "output", type=local_path, metavar="OUTPUT", help="directory to make or go on in"
    )
    parser.add_argument(
        "--from",
        dest="kind",
        choices=("coco", "table", "folder"),
        required=True,
        help="what SOURCE is: a directory as COCO's, a table of image files and captions, or a"
        " directory with train/ and val/, of images with a text file beside each",
    )
    parser.add_argument(
        "--split",
        nargs="+",
        choices=("train", "val"),
        default=["train", "val"],
        help="which to pack (default: both)",
    )
    parser.add_argument(
        "--labels",
        choices=("captions", "categories"),
        default="captions",
        help="what to pack of COCO's annotations: captions, or the categories of objects for"
        " multilabel classification (default: captions)",
    )
    parser.add_argument(
        "--samples-per-shard",
        type=positive,
        default=10000,
        metavar="N",
        help="all but the last shard hold as many (default: %(default)s)",
    )
    _add_pictures(parser.add_argument_group("pictures"))
    parser.add_argument(
        "--workers",
        type=positive,
        default=os.cpu_count(),
        metavar="N",
        help="processes, each of which writes whole shards (default: one a core)",
    )


def _add_pictures(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--short-side",
        type=positive,
        metavar="PIXELS",
        help="shrink larger pictures to this shorter side, upright, as JPEG (default: copy the"
        " files' bytes)",
    )
    group.add_argument(
        "--quality",
        type=positive,
        default=90,
        help="of JPEG with --short-side, 1 to 100 (default: %(default)s)",
    )
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out pictures that cannot be read, and name them, in place of an error",
    )
    add_image_limits(group)
    group.add_argument(
        "--no-check",
        action="store_true",
        help="copy files without looking whether they can be decoded",
    )


def run(arguments: argparse.Namespace) -> int:
    """Pack the splits and say what was done; raises `UserError`."""
    # Here, so that `--help` answers at once.
    from virtex.build.data import source
    from virtex.data.shards.pack import PackJob, pack
    from virtex.data.shards.writer import Packing, Reduction

    if arguments.quality > 100:
        raise UserError(f"--quality {arguments.quality}: expected 1 to 100")
    if arguments.kind != "coco" and arguments.labels == "categories":
        raise UserError(f"--labels categories: --from {arguments.kind} holds captions alone")
    reduction = (
        None if arguments.short_side is None else Reduction(arguments.short_side, arguments.quality)
    )
    with_categories = arguments.labels == "categories"
    packing = Packing(reduction, arguments.skip_bad, not arguments.no_check, with_categories)
    for split in dict.fromkeys(arguments.split):
        records, categories = source(
            arguments.kind,
            str(arguments.source),
            split,
            with_categories=with_categories,
            skip_bad=arguments.skip_bad,
        )
        job = PackJob(
            records=records,
            directory=arguments.output / split,
            packing=packing,
            samples_per_shard=arguments.samples_per_shard,
            categories=categories,
            workers=arguments.workers,
            limits=image_limits(arguments),
        )
        for line in records.report:
            print(f"{split}: {line}")
        done = pack(job, lambda line: print(line, flush=True))
        rate = done.samples_written / max(done.seconds, 1e-6)
        print(
            f"{split}: {done.samples:,} samples in {done.shards} shards,"
            f" {done.tar_bytes / 1e6:,.1f} MB ({done.kept} shards kept, {done.left_out} samples"
            f" left out), {done.seconds:.1f} s, {rate:.0f} images/s"
        )
    print(f"train on it with DATA.FORMAT shards DATA.ROOT {arguments.output}")
    return 0

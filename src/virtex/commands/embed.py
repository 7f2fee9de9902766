"""`virtex embed`: the features of images, in one file with their paths."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from virtex.commands.arguments import (
    CHECKPOINTS_OWN,
    add_device_argument,
    add_image_limits,
    add_int,
    add_pixel_arguments,
    add_quiet_argument,
    check_output,
    device_name,
    image_limits,
    local_path,
    pixel_options,
)
from virtex.commands.progress import Progress
from virtex.errors import UserError, first_few


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "paths",
        nargs="+",
        type=local_path,
        metavar="PATH",
        help="image files, or directories that hold them",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE",
        help="checkpoint of `virtex pretrain`, directory of `virtex export`, published weights, a "
        "state dict of torchvision's names, or `random` or `torchvision` with --network",
    )
    model.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="YAML configuration of a checkpoint that holds only weights",
    )
    model.add_argument(
        "--network", metavar="NAME", help="network of a state dict, such as torchvision::resnet50"
    )
    add_device_argument(model)
    model.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="auto is bfloat16 on a GPU that has it, otherwise float32 (default: auto)",
    )
    images = parser.add_argument_group("images")
    add_int(images, "--cpu-workers", "processes that read images", default=2, minimum=0)
    images.add_argument(
        "--on-bad-image",
        choices=("error", "skip"),
        default="error",
        help="what to do with images that cannot be read; each is named (default: error)",
    )
    add_image_limits(images)
    add_pixel_arguments(images, CHECKPOINTS_OWN)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="FILE",
        help="file of paths and features: .npz for NumPy, or .parquet, which requires pyarrow",
    )
    output.add_argument(
        "--cache-dir",
        type=local_path,
        metavar="DIR",
        help="directory of computed features, from which an interrupted command continues "
        "(default: virtex/ in the user's cache directory)",
    )
    add_quiet_argument(output)


def run(arguments: argparse.Namespace) -> int:
    """Compute the features and write the file."""
    import torch

    from virtex.data.shards.store import cache_directory
    from virtex.evaluation.backbones import open_backbones
    from virtex.evaluation.embedding import check_format, embed, write
    from virtex.evaluation.features import FeatureSettings, check_images
    from virtex.training.precision import named_precision

    output: Path = arguments.output
    check_output(output, None)
    check_format(output)
    paths = list(_images(arguments))
    check_images(paths, arguments.on_bad_image)
    (backbone,) = open_backbones(
        [arguments.checkpoint],
        config=arguments.config,
        network_name=arguments.network,
        pixels=pixel_options(arguments),
    )
    device = torch.device(device_name(arguments.device))
    settings = FeatureSettings(
        precision=named_precision(arguments.precision, device),
        device=device,
        workers=arguments.cpu_workers,
        limits=image_limits(arguments),
        cache=cache_directory(arguments.cache_dir),
    )
    with Progress("features", len(paths), "images", quiet=arguments.quiet) as progress:
        if backbone.note is not None:
            progress.note(backbone.note)
        found = embed(backbone, paths, settings, progress.advance)
        if found.bad and arguments.on_bad_image == "error":
            raise UserError(
                f"{len(found.bad)} of {len(paths)} images cannot be read: {first_few(found.bad)};"
                " repair or remove them, or give --on-bad-image skip"
            )
    for line in found.bad:
        print(f"skipped {line}", file=sys.stderr)
    write(output, found)
    count, width = found.values.shape
    print(f"written {output}: {count:,} images, {width:,} features each")
    return 0


def _images(arguments: argparse.Namespace) -> Iterator[Path]:
    """The image files of the paths; of directories those with an extension of images."""
    from virtex.data.images import IMAGE_EXTENSIONS, BadImage
    from virtex.data.sources.find_images import find_images

    named = set(arguments.paths)
    found = False
    for path in find_images(arguments.paths):
        if isinstance(path, BadImage):
            raise UserError(f"{path.path}: {path.reason}; name image files, or remove the path")
        if path in named or path.suffix[1:].lower() in IMAGE_EXTENSIONS:
            found = True
            yield path
    if not found:
        raise UserError(
            f"there are no images in {', '.join(map(str, arguments.paths))}; extensions are"
            f" {', '.join(sorted(IMAGE_EXTENSIONS))}"
        )

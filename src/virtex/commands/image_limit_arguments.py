"""The arguments of every command that reads images of the user's: how large one may be."""

import argparse
from typing import TYPE_CHECKING

from virtex.commands.arguments import positive

if TYPE_CHECKING:
    from virtex.data.images import ImageLimits


def add_image_limits(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """`--max-pixels` and `--max-image-mb`."""
    parser.add_argument(
        "--max-pixels",
        type=positive,
        metavar="N",
        help="refuse an image of more pixels, which takes up to 15 bytes each while it is read"
        " (default: 178956970)",
    )
    parser.add_argument(
        "--max-image-mb",
        type=positive,
        metavar="N",
        help="refuse an image file of more megabytes of 2^20 bytes (default: 256)",
    )


def image_limits(arguments: argparse.Namespace) -> "ImageLimits":
    """What `add_image_limits` got."""
    # Here, so that `--help` answers at once.
    from virtex.data.images import named_limits

    return named_limits(
        arguments.max_pixels,
        arguments.max_image_mb,
        settings=("--max-pixels", "--max-image-mb"),
    )

"""What `argparse` takes for the numbers and paths of our commands."""

import argparse
from pathlib import Path

from virtex.files import LOCAL_ONLY, is_address


def natural(text: str) -> int:
    """A whole number of 0 or more."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if natural(text) == 0:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def local_path(text: str) -> Path:
    """A path of the local file system; an address would become a directory such as `s3:`."""
    if is_address(text):
        raise argparse.ArgumentTypeError(f"{text!r} is an address; {LOCAL_ONLY}")
    return Path(text)


def add_quiet_argument(parser: argparse.ArgumentParser) -> None:
    """`--quiet`, for commands that report their progress."""
    parser.add_argument("--quiet", action="store_true", help="do not report progress")

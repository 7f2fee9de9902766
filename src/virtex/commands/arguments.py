"""The arguments that several commands share, and the types of their values."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.errors import UserError
from virtex.files import LOCAL_ONLY, is_address

if TYPE_CHECKING:
    from virtex.data.images import ImageLimits
    from virtex.inference.pretrained import Pretrained


def non_negative_int(text: str) -> int:
    """A whole number of 0 or more."""
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def positive_int(text: str) -> int:
    """A whole number of 1 or more."""
    if non_negative_int(text) == 0:
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


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint`, and what a file that is not self-contained needs beside it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=local_path,
        required=True,
        metavar="FILE",
        help="checkpoint written by `virtex pretrain`, published weights, or a state dict",
    )
    group.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="YAML configuration of the model; required if the checkpoint holds only weights",
    )
    group.add_argument(
        "--tokenizer",
        type=local_path,
        metavar="FILE",
        help="SentencePiece model (default: the one in the checkpoint, otherwise "
        "DATA.TOKENIZER_MODEL)",
    )


def load_checkpoint(arguments: argparse.Namespace) -> "Pretrained":
    """The model that the arguments name; raises `UserError`."""
    # Here, so that `--help` answers at once.
    from virtex.inference.pretrained import load

    return load(arguments.checkpoint, config=arguments.config, tokenizer=arguments.tokenizer)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """`--device`, for commands that compute on one."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="device to run on, such as cpu or cuda:1 (default: cuda if available)",
    )


def choose_device(name: str | None) -> str:
    """The device that `--device` names, else a GPU, else the CPU; raises `UserError`."""
    import torch

    gpus = torch.cuda.device_count()
    if name is None:
        return "cuda" if gpus else "cpu"
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{gpu}" for gpu in range(gpus))]
    if name not in known:
        raise UserError(f"--device {name}: the devices of this machine are {', '.join(known)}")
    return name


def add_image_limits(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """`--max-pixels` and `--max-image-mb`."""
    parser.add_argument(
        "--max-pixels",
        type=positive_int,
        metavar="N",
        help="reject images with more than N pixels; reading an image takes up to 15 bytes per "
        "pixel (default: 178956970)",
    )
    parser.add_argument(
        "--max-image-mb",
        type=positive_int,
        metavar="N",
        help="reject image files larger than N MiB (default: 256)",
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

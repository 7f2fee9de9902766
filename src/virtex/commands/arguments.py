"""The arguments that several commands share, and the types of their values."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from virtex.errors import UserError
from virtex.files import LOCAL_ONLY, is_address

if TYPE_CHECKING:
    from virtex.data.images import ImageLimits
    from virtex.inference.pretrained import Pretrained

Arguments = argparse._ActionsContainer
"""A parser or a group of its arguments."""


def non_negative_int(text: str) -> int:
    """Parse an integer ≥ 0."""
    return _parse_int(text, minimum=0)


def positive_int(text: str) -> int:
    """Parse an integer ≥ 1."""
    return _parse_int(text, minimum=1)


def _parse_int(text: str, minimum: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= minimum):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {minimum}")
    return int(text)


def local_path(text: str) -> Path:
    """Parse a path of the local file system; an address would become a directory such as `s3:`."""
    if is_address(text):
        raise argparse.ArgumentTypeError(f"{text!r} is an address; {LOCAL_ONLY}")
    return Path(text)


def add_int(
    parser: Arguments,
    flag: str,
    description: str,
    *,
    default: int | None = None,
    minimum: int = 1,
    metavar: str = "N",
) -> None:
    """Add a flag with an integer of at least `minimum`, 0 or 1; its help shows a default."""
    parser.add_argument(
        flag,
        type=positive_int if minimum else non_negative_int,
        default=default,
        metavar=metavar,
        help=description + ("" if default is None else " (default: %(default)s)"),
    )


def add_config_arguments(parser: Arguments, default: Path | None = None) -> None:
    """Add `--config`, which is required without `default`, and `--config-override`."""
    shown = "" if default is None else " (default: %(default)s)"
    parser.add_argument(
        "--config",
        type=local_path,
        required=default is None,
        default=default,
        metavar="FILE",
        help="YAML configuration, or the name of one that comes with the package, as shown by "
        "`virtex config --list`" + shown,
    )
    parser.add_argument(
        "--config-override",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="settings that override those of the YAML file, such as OPTIM.BATCH_SIZE 64",
    )


def add_quiet_argument(parser: Arguments) -> None:
    """Add `--quiet`."""
    parser.add_argument("--quiet", action="store_true", help="do not report progress")


def check_output(output: Path, if_it_exists: str | None) -> None:
    """Raise `UserError` for a directory.

    Also for an existing file, unless `if_it_exists`, which says what to do about it, is None.
    """
    if output.is_dir():
        raise UserError(f"--output {output} is a directory; name a file in it")
    if if_it_exists is not None and output.is_file():
        raise UserError(f"{output} exists; {if_it_exists}, or choose another --output")


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--checkpoint`, and the flags for checkpoints that are not self-contained."""
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
    """Load the model of `add_checkpoint_arguments`; raises `UserError`."""
    # Imported here, so that `--help` is fast.
    from virtex.inference.pretrained import load

    return load(arguments.checkpoint, config=arguments.config, tokenizer=arguments.tokenizer)


def add_image_limits(parser: Arguments) -> None:
    """Add `--max-pixels` and `--max-image-mb`."""
    add_int(
        parser,
        "--max-pixels",
        "reject images with more than N pixels; reading an image takes up to 15 bytes per pixel "
        "(default: 178,956,970)",
    )
    add_int(parser, "--max-image-mb", "reject image files larger than N MiB (default: 256)")


def image_limits(arguments: argparse.Namespace) -> "ImageLimits":
    """The limits of `add_image_limits`."""
    from virtex.data.images import named_limits

    return named_limits(
        arguments.max_pixels, arguments.max_image_mb, settings=("--max-pixels", "--max-image-mb")
    )


def _pixel_range(text: str) -> tuple[float, float] | str:
    if text == "percentiles":
        return text
    low, high = _pair(text, "LOW,HIGH or percentiles")
    if low >= high:
        raise argparse.ArgumentTypeError(f"{text!r}: LOW must be below HIGH")
    return low, high


def _window(text: str) -> tuple[float, float] | str:
    if text in ("file", "none"):
        return text
    center, width = _pair(text, "CENTRE,WIDTH, file or none")
    if width < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: WIDTH must be at least 1")
    return center, width


def _pair(text: str, expected: str) -> tuple[float, float]:
    try:
        first, second = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}") from None
    return first, second


def add_pixel_arguments(parser: Arguments, default: str) -> None:
    """Add `--pixel-range`, `--dicom-window` and `--dicom-frame`; `default` says what they are."""
    parser.add_argument(
        "--pixel-range",
        type=_pixel_range,
        metavar="LOW,HIGH",
        help="values that become 0 and 255 in images of more than 8 bits, as in 0,4095 or "
        f"--pixel-range=-100,300, or percentiles for those of each image (default: {default})",
    )
    parser.add_argument(
        "--dicom-window",
        type=_window,
        metavar="CENTRE,WIDTH",
        help="window of grey DICOM images; file is that of the file, none maps their values by "
        f"--pixel-range (default: {default})",
    )
    parser.add_argument(
        "--dicom-frame",
        choices=("error", "first", "middle"),
        help=f"frame of DICOM images with several; error refuses them (default: {default})",
    )


CHECKPOINTS_OWN = "that of the checkpoint's configuration"
"""The default of `add_pixel_arguments` for commands that read a checkpoint."""


def pixel_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of `add_pixel_arguments`, by settings of `DATA` in lower case; None if not given.

    Without a choice by a checkpoint, a range of auto is that of the file.
    """
    return {name: getattr(arguments, name) for name in _PIXEL_OPTIONS}


_PIXEL_OPTIONS = ("pixel_range", "dicom_window", "dicom_frame")


def evaluation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `virtex evaluate` by the names that `virtex.evaluation.opening` takes."""
    import torch

    device = torch.device(device_name(arguments.device))
    read = {"limits": image_limits(arguments), "pixels": pixel_options(arguments)}
    return {**vars(arguments), "device": device, **read}


def add_device_argument(parser: Arguments) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="device to run on, such as cpu or cuda:1 (default: cuda if available, otherwise cpu)",
    )


def load_on_device(arguments: argparse.Namespace) -> "Pretrained":
    """Load the model onto `--device`; raises `UserError`.

    It reads images by `add_image_limits` and `add_pixel_arguments`.
    """
    from virtex.build.images import with_pixel_options

    device = device_name(arguments.device)
    model = load_checkpoint(arguments).to(device)
    config = with_pixel_options(model.config, pixel_options(arguments))
    return replace(model, config=config, limits=image_limits(arguments))


def device_name(name: str | None) -> str:
    """The device of `--device`, by default the first GPU, otherwise the CPU; raises `UserError`."""
    import torch

    gpus = torch.cuda.device_count()
    if name is None:
        return "cuda" if gpus else "cpu"
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{gpu}" for gpu in range(gpus))]
    if name not in known:
        raise UserError(
            f"--device {name} is not available; the devices of this machine: {', '.join(known)}"
        )
    return name

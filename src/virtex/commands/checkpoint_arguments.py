"""The arguments of every command that takes a pretrained model."""

import argparse
from typing import TYPE_CHECKING

from virtex.commands.arguments import local_path
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.inference.pretrained import Pretrained


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """`--checkpoint`, and what a file that is not self-contained needs beside it."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        type=local_path,
        required=True,
        metavar="FILE",
        help="of `virtex pretrain`, which is enough; or published weights, or a state dict",
    )
    group.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="YAML of the run; needed where the checkpoint holds weights alone",
    )
    group.add_argument(
        "--tokenizer",
        type=local_path,
        metavar="FILE",
        help="vocabulary of the weights (default: the checkpoint's, else DATA.TOKENIZER_MODEL)",
    )


def load_checkpoint(arguments: argparse.Namespace) -> "Pretrained":
    """The model that the arguments name; raises `UserError`."""
    # Here, so that `--help` answers at once.
    from virtex.inference.pretrained import load

    return load(arguments.checkpoint, config=arguments.config, tokenizer=arguments.tokenizer)


def add_device_argument(parser: argparse.ArgumentParser) -> None:
    """`--device`, for commands that compute on one."""
    parser.add_argument(
        "--device", metavar="NAME", help="such as cpu or cuda:1 (default: cuda if there is one)"
    )


def choose_device(name: str | None) -> str:
    """The device that `--device` names, else a GPU, else the CPU; raises `UserError`."""
    import torch

    gpus = torch.cuda.device_count()
    if name is None:
        return "cuda" if gpus else "cpu"
    known = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{gpu}" for gpu in range(gpus))]
    if name not in known:
        raise UserError(f"--device {name}: this machine has {', '.join(known)}")
    return name

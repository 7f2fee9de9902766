"""`virtex export`: a trained backbone as a directory that another library loads."""

import argparse
from pathlib import Path

from virtex.commands.arguments import local_path

_TARGETS = ("timm", "torchvision", "onnx", "detectron2", "virtex")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "target",
        choices=_TARGETS,
        help="library that loads the backbone: timm is also read by transformers, and virtex gets "
        "the whole model with its vocabulary",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE",
        help="checkpoint of `virtex pretrain`, published weights, or a state dict of torchvision's "
        "names",
    )
    parser.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="YAML configuration of a checkpoint that holds only weights",
    )
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="network of a state dict, such as torchvision::resnet50",
    )
    parser.add_argument(
        "--output", type=local_path, required=True, metavar="DIR", help="new directory to write"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the directory, load it back, and print how to use it; returns 1 if that fails."""
    from virtex.checkpoints.exported import read_manifest
    from virtex.exporting.card import usage
    from virtex.exporting.interface import export

    output: Path = arguments.output
    found = export(
        arguments.checkpoint,
        arguments.target,
        output,
        config=arguments.config,
        network=arguments.network,
    )
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"written {output}, {size / 1e6:.1f} MB")
    print(*(one.line for one in found), sep="\n")
    print("\n".join(usage(read_manifest(output))).replace("DIR", str(output)))
    return int(any(one.problem is not None for one in found))

"""`virtex export`: a trained backbone as a directory that another library loads."""

import argparse
from pathlib import Path

from virtex.commands.arguments import local_path

_TARGETS = ("timm", "torchvision", "onnx", "detectron2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "target",
        choices=_TARGETS,
        help="library that loads the backbone; timm is also read by transformers",
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
    from virtex.evaluation.backbones import open_backbones
    from virtex.evaluation.results import RESULTS, read_results
    from virtex.exporting.backbone import ExportedBackbone, export_backbone
    from virtex.exporting.card import usage
    from virtex.exporting.verification import describe, verify

    (opened,) = open_backbones(
        [arguments.checkpoint], config=arguments.config, network_name=arguments.network
    )
    recorded = Path(opened.name).parent / RESULTS if opened.path is not None else None
    results = () if recorded is None or not recorded.exists() else read_results(recorded)
    exported = ExportedBackbone(
        opened.module,
        opened.config,
        opened.name,
        opened.iteration,
        tuple(one.model_dump() for one in results if one.checkpoint == opened.sha256),
    )
    manifest = export_backbone(arguments.target, exported, arguments.output)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    print(f"written {arguments.output}, {size / 1e6:.1f} MB")
    found = verify(arguments.output)
    print("\n".join(describe(found)))
    print(*usage(manifest), sep="\n")
    return int(any(one.problem is not None for one in found))

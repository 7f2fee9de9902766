"""`virtex evaluate`: figures of backbones and captioning models by a protocol."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    add_device_argument,
    add_image_limits,
    add_int,
    add_quiet_argument,
    check_output,
    device_name,
    image_limits,
    local_path,
)
from virtex.commands.evaluate_heads import (
    HEAD_PROTOCOLS,
    add_head_arguments,
    check_options,
    head_results,
)
from virtex.commands.evaluate_scenes import evaluate_scenes
from virtex.commands.progress import Progress
from virtex.files import check_writable

if TYPE_CHECKING:
    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.heads import EvaluatedModel
    from virtex.evaluation.results import Result

PROTOCOLS = {
    "knn": "vote of the nearest training images",
    "linear": "logistic regression on frozen features, with the penalty chosen on a fifth of train",
    "low-shot": "the same on 1 to 96 images of each class, mean and deviation of five draws",
    "voc07": "a linear SVM for each class, as published for PASCAL VOC 2007",
    "words": "which words do the captions hold? Needs captions instead of labels",
    "scenes": "true captions, and classification of shapes, on scenes of `virtex synthesize`",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex evaluate`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    every = PROTOCOLS | HEAD_PROTOCOLS
    width = max(map(len, every)) + 2
    lines = {name: f"  {name:<{width}}{summary}" for name, summary in every.items()}
    parser.epilog = "\n".join(
        [
            "protocols on frozen features:",
            *(lines[name] for name in PROTOCOLS),
            "protocols that use the captioning head:",
            *(lines[name] for name in HEAD_PROTOCOLS),
        ]
    )
    parser.add_argument("protocol", choices=every, metavar="PROTOCOL", help="see below")
    parser.add_argument(
        "--data",
        type=local_path,
        required=True,
        metavar="PATH",
        help="labelled images: a directory with train/CLASS/ and val/CLASS/, a VOC2007 tree, a "
        "COCO tree, or a .csv or .tsv file with image, split and label columns; for `words`, "
        "`captioning` and `retrieval`, captions in COCO's layout or a directory of tables, as for "
        "pretraining",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        action="append",
        required=True,
        metavar="FILE",
        help="checkpoint of `virtex pretrain`, published weights, a state dict of torchvision's "
        "names, `random` for initial weights, or `torchvision` for its ImageNet weights; several "
        "give one table",
    )
    group.add_argument(
        "--config", type=local_path, metavar="FILE", help="YAML configuration of published weights"
    )
    group.add_argument(
        "--network",
        metavar="NAME",
        help="network of a state dict, of `random` and of `torchvision`, such as "
        "torchvision::resnet50 (default: that of the first checkpoint of a run)",
    )
    add_int(
        group,
        "--image-size",
        "side of the images in pixels (default: DATA.IMAGE_CROP_SIZE)",
        minimum=1,
    )
    add_device_argument(group)
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="type of the forward pass; auto is bfloat16 on a GPU that has it, otherwise float32, "
        "and float32 for protocols that use the captioning head (default: %(default)s)",
    )
    add_int(parser, "--seed", "seed of draws and held-out images", default=0, minimum=0)
    parser.add_argument(
        "--engine",
        choices=("sklearn", "torch"),
        default="sklearn",
        help="solver of voc07: scikit-learn's LinearSVC as published, or all classes at once, "
        "which is faster and agrees within 0.05 points (default: %(default)s)",
    )
    add_int(parser, "--cpu-workers", "processes that read images", default=2, minimum=0)
    parser.add_argument(
        "--on-bad-image",
        choices=("error", "skip"),
        default="error",
        help="what to do with images that cannot be read; each is named (default: %(default)s)",
    )
    add_image_limits(parser)
    parser.add_argument(
        "--cache-dir",
        type=local_path,
        metavar="DIR",
        help="directory of computed features (default: virtex/ in the user's cache directory)",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        metavar="PATH",
        help="JSON file to which all results are added (default: results.json beside each "
        "checkpoint; none for `random` and `torchvision`); for `scenes`, a directory for "
        "results.json, captions.jsonl and captions.png, which are overwritten",
    )
    add_int(parser, "--images", "scenes: number of held-out scenes to caption (default: 100)")
    add_head_arguments(parser)
    add_quiet_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, evaluate, add the results to their files and print the table."""
    from virtex.evaluation.results import check_results, results_table

    check_options(arguments)
    if arguments.protocol == "scenes":
        return evaluate_scenes(arguments)
    if arguments.output is not None:
        check_output(arguments.output, if_it_exists=None)
        check_results(arguments.output)
    found = head_results if arguments.protocol in HEAD_PROTOCOLS else _backbone_results
    results: list[Result] = []
    try:
        for model, figures in found(arguments):
            results += figures
            _keep(model, figures, arguments.output)
    finally:
        if results:  # those that are complete, if a later checkpoint fails
            print(results_table(results))
    return 0


def _backbone_results(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[EvaluatedBackbone, list[Result]]]":
    """Check everything, then give each backbone with its results; raises `UserError`."""
    import torch

    from virtex.data.shards.store import cache_directory
    from virtex.evaluation.backbones import open_backbones
    from virtex.evaluation.evaluate import evaluate_backbones, open_evaluation
    from virtex.evaluation.features import FeatureSettings
    from virtex.evaluation.results import check_results
    from virtex.training.precision import named_precision

    data = open_evaluation(
        arguments.protocol, arguments.data, seed=arguments.seed, engine=arguments.engine
    )
    backbones = open_backbones(
        arguments.checkpoint,
        config=arguments.config,
        network_name=arguments.network,
        image_size=arguments.image_size,
    )
    for backbone in backbones:
        output = _output(backbone, arguments.output)
        if output is not None:
            check_results(output)
    device = torch.device(device_name(arguments.device))
    settings = FeatureSettings(
        precision=named_precision(arguments.precision, device),
        device=device,
        workers=arguments.cpu_workers,
        limits=image_limits(arguments),
        cache=cache_directory(arguments.cache_dir),
    )
    if settings.cache is not None:
        check_writable(settings.cache)
    images = data.images * len(backbones)
    with Progress("features", images, "images", quiet=arguments.quiet) as progress:
        for line in data.report:
            progress.note(line)
        found = evaluate_backbones(
            arguments.protocol,
            data,
            backbones,
            settings,
            seed=arguments.seed,
            on_bad_image=arguments.on_bad_image,
            say=progress.note,
            advance=progress.advance,
        )
        yield from zip(backbones, found, strict=True)


def _output(backbone: "EvaluatedBackbone | EvaluatedModel", output: Path | None) -> Path | None:
    from virtex.evaluation.results import RESULTS

    beside = None if backbone.path is None else backbone.path.parent / RESULTS
    return beside if output is None else output


def _keep(
    backbone: "EvaluatedBackbone | EvaluatedModel", results: "list[Result]", output: Path | None
) -> None:
    """Add results to their file, and to TensorBoard for the checkpoint of a run."""
    from virtex.evaluation.results import add_results
    from virtex.training.logger import log_evaluation

    path, output = backbone.path, _output(backbone, output)
    if output is not None:
        add_results(output, results)
    writable = path is not None and os.access(path.parent, os.W_OK)
    if path is not None and writable and backbone.iteration is not None:
        values = {f"evaluate/{one.protocol}/{one.metric}": one.value for one in results}
        log_evaluation(path.parent, backbone.iteration, values)

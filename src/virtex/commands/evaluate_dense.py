"""The protocols of `virtex evaluate` that train a head: detection and linear segmentation."""

import argparse
import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from virtex.commands.arguments import Arguments, add_int, evaluation_options, local_path
from virtex.commands.evaluate_results import check_results_of
from virtex.commands.progress import Progress

if TYPE_CHECKING:
    from virtex.evaluation.backbones import EvaluatedBackbone
    from virtex.evaluation.results import Result

DENSE_PROTOCOLS = {
    "detection": "Faster R-CNN on a VOC tree, or Mask R-CNN on a COCO tree, with a pyramid (FPN)",
    "linear-segmentation": "a linear classifier of pixels on frozen features of two stages",
}


def add_dense_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that only protocols have which train a head on images."""
    group = parser.add_argument_group("protocols that train a head on images")
    add_int(
        group,
        "--iterations",
        "iterations of training (default: 24,000 on a VOC tree and 180,000 on a COCO tree, as "
        "published; 5,000 for linear-segmentation)",
    )
    group.add_argument(
        "--learning-rate",
        type=_positive_float,
        metavar="X",
        help="peak learning rate (default: 0.02 for 16 images a batch and in proportion to them; "
        "0.001 for linear-segmentation)",
    )
    group.add_argument(
        "--work-dir",
        type=local_path,
        metavar="DIR",
        help="directory for checkpoints, losses and predictions, in a directory of its own for "
        "each --checkpoint (default: runs/PROTOCOL)",
    )
    add_int(group, "--save-every", "save a checkpoint every N iterations (default: 1,000)")
    group.add_argument(
        "--resume",
        action="store_true",
        help="continue the trainings that were stopped in --work-dir, and begin those missing",
    )
    _add_detection_arguments(group)
    group.add_argument(
        "--mask-classes",
        type=local_path,
        metavar="FILE",
        help="linear-segmentation: the names of the classes, one a line, for the masks' indices "
        "from 0 on (default: indices up to the largest in the masks)",
    )


def dense_results(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[EvaluatedBackbone, list[Result]]]":
    """Check everything, then give each backbone with its results; raises `UserError`."""
    from virtex.evaluation.dense.detection_run import FailedProcesses
    from virtex.evaluation.dense.evaluate import open_dense
    from virtex.evaluation.dense.options import DenseOptions
    from virtex.evaluation.dense.reporting import Reporting

    options = DenseOptions.select(evaluation_options(arguments))
    reporting = Reporting(partial(print, flush=True), partial(Progress, quiet=arguments.quiet))
    evaluation = open_dense(arguments.protocol, options, reporting)
    for backbone in evaluation.backbones:
        check_results_of(backbone, arguments.output)
    try:
        yield from zip(evaluation.backbones, evaluation.results(), strict=True)
    except FailedProcesses as error:  # which have printed why
        raise SystemExit(error.exit_status) from error


def _add_detection_arguments(group: Arguments) -> None:
    group.add_argument(
        "--detector",
        choices=("faster-rcnn", "mask-rcnn"),
        help="detection: which detector (default: mask-rcnn on a COCO tree; a VOC tree allows only "
        "faster-rcnn)",
    )
    group.add_argument(
        "--frozen",
        action="store_true",
        help="detection: keep the backbone as it is (default: all its layers are trained)",
    )
    add_int(
        group,
        "--min-size",
        "detection: shorter side of the images in the test, in pixels; in training it is drawn "
        "from 60 %% (VOC) or 80 %% (COCO) of that up to all (default: 800)",
        minimum=1,
    )
    add_int(
        group,
        "--max-size",
        "detection: longest side of the images, in pixels (default: 5/3 of --min-size)",
        minimum=1,
    )
    add_int(
        group,
        "--pyramid-channels",
        "detection: channels of the feature pyramid and the mask head; fewer are much faster on a "
        "CPU (default: 256, as published)",
    )


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value

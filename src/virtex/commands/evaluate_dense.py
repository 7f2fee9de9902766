"""The options of `virtex evaluate` for protocols that train a head: detection, segmentation."""

import argparse
import math

from virtex.commands.arguments import Arguments, add_int, local_path

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
        default=None,
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
        default=None,
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

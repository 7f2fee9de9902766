"""`virtex evaluate`: figures of backbones and captioning models by a protocol.

Of several processes, all compute features, and the first does everything else.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    CHECKPOINTS_OWN,
    add_device_argument,
    add_image_limits,
    add_int,
    add_pixel_arguments,
    add_quiet_argument,
    check_output,
    device_name,
    local_path,
)
from virtex.commands.evaluate_backbones import backbone_results
from virtex.commands.evaluate_dense import DENSE_PROTOCOLS, add_dense_arguments, dense_results
from virtex.commands.evaluate_heads import (
    HEAD_PROTOCOLS,
    add_head_arguments,
    head_results,
)
from virtex.commands.evaluate_results import keep_results
from virtex.commands.evaluate_scenes import scenes_results
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.commands.evaluate_results import Evaluated
    from virtex.distributed.world import World
    from virtex.evaluation.results import Result

PROTOCOLS = {
    "knn": "vote of the nearest training images",
    "linear": "logistic regression on frozen features, with the penalty chosen on a fifth of train",
    "low-shot": "the same on 1 to 96 images of each class, mean and deviation of five draws",
    "voc07": "a linear SVM for each class, as published for PASCAL VOC 2007",
    "words": "which words do the captions hold? Needs captions instead of labels",
    "scenes": "true captions, and classification of shapes, on scenes of `virtex synthesize`",
}

FINETUNE = "finetune"
"""A protocol with a command of its own, `evaluate_finetune`."""

_REMEDY = "Results that were complete are kept; start the command again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex evaluate`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    every = PROTOCOLS | HEAD_PROTOCOLS | DENSE_PROTOCOLS
    width = max(map(len, every)) + 2
    lines = {name: f"  {name:<{width}}{summary}" for name, summary in every.items()}
    parser.epilog = "\n".join(
        [
            "protocols on frozen features:",
            *(lines[name] for name in PROTOCOLS),
            "protocols that use the captioning head:",
            *(lines[name] for name in HEAD_PROTOCOLS),
            "protocols that train a head on images (docs/detection.md):",
            *(lines[name] for name in DENSE_PROTOCOLS),
            "protocols that train the backbone:",
            f"  {FINETUNE:<{width}}has options of its own: see `virtex evaluate finetune --help`",
        ]
    )
    names = (*every, FINETUNE)
    parser.add_argument("protocol", choices=names, metavar="PROTOCOL", help="see below")
    parser.add_argument(
        "--data",
        type=local_path,
        required=True,
        metavar="PATH",
        help="labelled images: a directory with train/CLASS/ and val/CLASS/, a VOC2007 tree, a "
        "COCO tree, or a .csv or .tsv file with image, split and label columns; for `words`, "
        "`captioning` and `retrieval`, captions in COCO's layout or a directory of tables, as for "
        "pretraining; for `detection`, a COCO or VOC2007 tree; for `linear-segmentation`, a "
        "directory with train/images, train/masks, val/images and val/masks",
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--checkpoint",
        dest="checkpoints",
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
    group.add_argument(
        "--average",
        action="store_true",
        help="judge the average of the weights that a run with OPTIM.EMA.DECAY keeps",
    )
    add_int(
        group,
        "--image-size",
        "side of the images in pixels (default: DATA.IMAGE_CROP_SIZE)",
        minimum=1,
    )
    add_device_argument(group)
    add_int(
        group,
        "--processes",
        "number of processes that compute features or train a detector, each on a GPU of its own, "
        "or all on the CPU with --device cpu; under torchrun, that of torchrun, which does not "
        "start detection (default: 1)",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="type of the forward pass; auto is bfloat16 on a GPU that has it, otherwise float32, "
        "and float32 for scenes, detection and protocols that use the captioning head (default: "
        "%(default)s)",
    )
    add_int(parser, "--seed", "seed of draws and held-out images (default: 0)", minimum=0)
    parser.add_argument(
        "--engine",
        choices=("sklearn", "torch"),
        help="solver of voc07: scikit-learn's LinearSVC as published, or all classes at once, "
        "which is faster and agrees within 0.05 points (default: sklearn)",
    )
    add_int(parser, "--cpu-workers", "processes that read images", default=2, minimum=0)
    parser.add_argument(
        "--on-bad-image",
        choices=("error", "skip"),
        help="what to do with images that cannot be read; each is named (default: error)",
    )
    add_image_limits(parser)
    add_pixel_arguments(parser, CHECKPOINTS_OWN)
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
    add_dense_arguments(parser)
    add_quiet_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, evaluate, add the results to their files and print the table."""
    from virtex.evaluation.options import check_options, defaults_of

    if arguments.protocol == FINETUNE:
        raise UserError("put the word finetune first: virtex evaluate finetune --data …")
    check_options(arguments.protocol, vars(arguments), flags=True)
    for name, default in defaults_of(arguments.protocol).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    processes = arguments.processes or 1
    if processes == 1 or arguments.protocol == "detection":  # it starts one for each checkpoint
        return _evaluate(arguments)
    _uses_gpus(arguments, processes, processes - 1)

    from virtex.distributed.launch import launch, on_this_machine

    return launch(_evaluate, arguments, on_this_machine(processes, _REMEDY))


def _evaluate(arguments: argparse.Namespace) -> int:
    """In one process, or in one of those that torchrun or `launch` has started."""
    from virtex.distributed.environment import read_environment

    process = read_environment()
    if process.size == 1:
        from virtex.distributed.world import ALONE

        return _evaluate_in(ALONE, arguments)
    if arguments.processes not in (None, process.size):
        raise UserError(
            f"--processes {arguments.processes}: there are {process.size} processes already; leave "
            "it out under torchrun"
        )
    gpus = _uses_gpus(arguments, process.size, process.local_rank)

    from virtex.distributed.cpu_threads import share_cores
    from virtex.distributed.signals import SIGNALS
    from virtex.distributed.world import SharedError, Timeouts, connect

    if not gpus:
        share_cores(process.size)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # there is nothing to save
    # The others wait while the first process fits classifiers, for as long as that takes.
    timeouts = Timeouts(watchdog_timeout=float("inf"))
    with connect(process, gpus=gpus, timeouts=timeouts, remedy=_REMEDY) as (world, _):
        try:
            return _evaluate_in(world, arguments)
        except SharedError as error:
            if world.main:
                print(f"virtex evaluate: error: {error}", file=sys.stderr, flush=True)
            world.wait()  # else an agent could end the first process before it has reported
            return error.exit_status


def _uses_gpus(arguments: argparse.Namespace, processes: int, local_rank: int) -> bool:
    """Whether each of several processes uses a GPU of its own; raises `UserError`."""
    import torch

    device, gpus = device_name(arguments.device), torch.cuda.device_count()
    if device not in ("cpu", "cuda"):
        raise UserError(
            f"--device {device} is one GPU for {processes} processes; leave it out, or give cpu"
        )
    own = gpus == 1 and "SLURM_PROCID" in os.environ  # srun may show a process only its own GPU
    if device == "cuda" and local_rank >= gpus and not own:
        raise UserError(
            f"there are more processes than GPUs ({gpus}) on this machine; start fewer, or give "
            "--device cpu"
        )
    return device == "cuda"


def _evaluate_in(world: "World", arguments: argparse.Namespace) -> int:
    from virtex.evaluation.options import FEATURES

    with world.shared_errors():
        if world.size > 1 and arguments.protocol not in FEATURES:
            raise UserError(f"{arguments.protocol} uses one process; start it without torchrun")
    if arguments.protocol == "scenes":
        return scenes_results(arguments)
    from virtex.evaluation.results import check_results, results_table

    with world.shared_errors():
        if arguments.output is not None:
            check_output(arguments.output, if_it_exists=None)
            check_results(arguments.output)
    results: list[Result] = []
    try:
        for model, figures in _results_of(arguments, world):
            with world.shared_errors():
                if world.main:
                    results += figures
                    keep_results(model, figures, arguments.output)
    finally:
        if results:  # those that are complete, if a later checkpoint fails
            print(results_table(results))
    return 0


def _results_of(
    arguments: argparse.Namespace, world: "World"
) -> "Iterator[tuple[Evaluated, list[Result]]]":
    if arguments.protocol in DENSE_PROTOCOLS:
        return dense_results(arguments)
    if arguments.protocol in HEAD_PROTOCOLS:
        return head_results(arguments)
    return backbone_results(arguments, world)

"""`virtex evaluate finetune`: train a backbone, or a linear layer on it, and judge the result.

The training is a run as that of `virtex pretrain`: its directory, options and launch are the same.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import add_int, check_output, device_name, local_path
from virtex.commands.evaluate_results import keep_results, results_path
from virtex.commands.pretrain import (
    add_process_arguments,
    add_saving_arguments,
    add_start_arguments,
    launch_run,
    options_of,
    processes_of,
)

if TYPE_CHECKING:
    from virtex.evaluation.finetuning import FinetuneRequest, Finetuning
    from virtex.training.setup import PretrainOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex evaluate finetune`."""
    parser.add_argument(
        "--data",
        type=local_path,
        required=True,
        metavar="PATH",
        help="labelled images: a directory with train/CLASS/ and val/CLASS/, a VOC2007 tree, a "
        "COCO tree, or a .csv or .tsv file with image, split and label columns",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE",
        help="where the backbone is taken from: a checkpoint of `virtex pretrain`, published "
        "weights, a state dict of torchvision's names, `random` for initial weights, or "
        "`torchvision` for its ImageNet weights",
    )
    model.add_argument(
        "--network",
        metavar="NAME",
        help="network of `random`, of `torchvision` and of weights without a configuration, such "
        "as torchvision::resnet50 (default: MODEL.VISUAL.NAME of --config)",
    )
    model.add_argument(
        "--frozen",
        action="store_true",
        help="train only the linear layer, on augmented images; weights and batch norm statistics "
        "of the backbone stay as they are",
    )
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument(
        "--config",
        type=local_path,
        metavar="FILE",
        help="YAML configuration of the training, such as downstream/imagenet_clf; "
        "data, classes and network are filled in (default: SGD with batches of 64 images, learning "
        "rates of 0.025, or 0.3 with --frozen, times the batch size / 256, warm-up and cosine)",
    )
    recipe.add_argument(
        "--config-override",
        nargs="*",
        action="extend",
        default=[],
        metavar="KEY VALUE",
        help="settings that override those of the recipe, such as OPTIM.LR 0.01",
    )
    add_int(
        recipe,
        "--epochs",
        "set OPTIM.NUM_ITERATIONS to N passes over the training images (default: that of --config, "
        "or 10)",
    )
    add_int(
        recipe,
        "--image-size",
        "side of the images in pixels (default: DATA.IMAGE_CROP_SIZE of --config, or that of the "
        "checkpoint)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--serialization-dir",
        type=local_path,
        required=True,
        metavar="DIR",
        help="directory of the run: its checkpoints, logs and results.json",
    )
    output.add_argument(
        "--output",
        type=local_path,
        metavar="FILE",
        help="JSON file to which the results are also added (default: results.json beside "
        "--checkpoint; none for `random` and `torchvision`)",
    )
    add_saving_arguments(output)
    add_start_arguments(parser)
    add_process_arguments(parser)
    parser.set_defaults(init_from=None, init_parts=None, init_tokenizer=None)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, train or resume, judge the last weights and print the table."""
    from virtex.distributed.environment import read_environment
    from virtex.distributed.signals import stop_requests

    main = read_environment().rank == 0 and arguments.machine_rank == 0
    with stop_requests():  # recorded from here on, as in `virtex pretrain`
        prepared, options = _prepare(arguments)
        if main:
            print("\n".join(prepared.report), file=sys.stderr, flush=True)
        status = _train(arguments, prepared, options, main=main)
    if main and status == 0 and not arguments.preflight:
        _judge(arguments, prepared)
    return status


def _prepare(arguments: argparse.Namespace) -> "tuple[Finetuning, PretrainOptions]":
    from virtex.checkpoints.run_directory import LATEST
    from virtex.evaluation.finetuning import prepare_finetuning
    from virtex.evaluation.results import RESULTS, check_results, read_results
    from virtex.evaluation.starting_backbone import read_start

    processes = processes_of(arguments)
    start = None
    if arguments.resume_from is not None:
        latest = arguments.resume_from == LATEST
        begun = arguments.serialization_dir if latest else Path(arguments.resume_from).parent
        start = read_start(begun)
    prepared = prepare_finetuning(_request(arguments), start)
    options = options_of(
        arguments,
        prepared.config,
        arguments.serialization_dir,
        overridden=prepared.chosen,
        processes=processes,
        command="virtex evaluate finetune",
    )
    read_results(arguments.serialization_dir / RESULTS)  # in a directory that a run makes later
    other = results_path(prepared.start, arguments.output)
    if other is not None:
        check_output(other, if_it_exists=None)
        check_results(other)
    return prepared, options


def _request(arguments: argparse.Namespace) -> "FinetuneRequest":
    from virtex.evaluation.finetuning import FinetuneRequest

    return FinetuneRequest(
        data=arguments.data,
        checkpoint=arguments.checkpoint,
        config=arguments.config,
        overrides=tuple(arguments.config_override),
        network=arguments.network,
        image_size=arguments.image_size,
        epochs=arguments.epochs,
        frozen=arguments.frozen,
        checkpoint_every=arguments.checkpoint_every,
    )


def _train(
    arguments: argparse.Namespace, prepared: "Finetuning", options: "PretrainOptions", *, main: bool
) -> int:
    """Train; a run that was refused leaves nothing behind."""
    from virtex.checkpoints.lock import LOCK
    from virtex.checkpoints.run_directory import holds_run
    from virtex.evaluation.starting_backbone import START, start_json
    from virtex.files import write_whole

    directory: Path = arguments.serialization_dir
    if not main or arguments.preflight:
        return launch_run(arguments, options)
    made = not directory.exists()
    write_whole(directory / START, start_json(prepared.start))
    try:
        return launch_run(arguments, options)
    finally:
        if not holds_run(directory):
            (directory / START).unlink(missing_ok=True)
            if made and {path.name for path in directory.iterdir()} <= {LOCK}:
                (directory / LOCK).unlink(missing_ok=True)
                directory.rmdir()


def _judge(arguments: argparse.Namespace, prepared: "Finetuning") -> None:
    """Judge the last weights, print the table and add the results to their files."""
    import torch

    from virtex.evaluation.finetuned import judge
    from virtex.evaluation.results import RESULTS, add_results, results_table
    from virtex.training.logger import log_evaluation

    gpus = arguments.num_gpus_per_machine > 0
    results = judge(
        arguments.serialization_dir,
        prepared,
        device=torch.device(device_name(None if gpus else "cpu")),
        workers=arguments.cpu_workers,
    )
    print(results_table(results))
    add_results(arguments.serialization_dir / RESULTS, results)
    keep_results(prepared.start, results, arguments.output)
    iteration = results[0].settings["iterations"]
    assert isinstance(iteration, int)
    values = {f"evaluate/finetune/{one.metric}": one.value for one in results}
    log_evaluation(arguments.serialization_dir, iteration, values)

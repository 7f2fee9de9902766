"""`virtex evaluate scenes`: the accuracy of captions and features on held-out scenes.

`virtex evaluate-scenes`, its earlier form, works for one more release.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    add_checkpoint_arguments,
    add_int,
    add_quiet_argument,
    evaluation_options,
    local_path,
)
from virtex.commands.evaluate_results import keep_results
from virtex.commands.progress import Progress
from virtex.errors import UserError
from virtex.files import check_writable

if TYPE_CHECKING:
    from virtex.evaluation.results import Result
    from virtex.evaluation.scenes import Progress as SceneProgress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex evaluate-scenes`."""
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--scenes",
        type=local_path,
        required=True,
        metavar="DIR",
        help="output directory of `virtex synthesize`",
    )
    parser.add_argument(
        "--output",
        type=local_path,
        required=True,
        metavar="DIR",
        help="directory for results.json and, for captioning models, captions.jsonl and "
        "captions.png; existing files of these names are overwritten",
    )
    add_int(parser, "--images", "number of held-out scenes to caption", default=100)
    add_quiet_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate captions, if the model's task has them, and features; print the table."""
    import torch

    from virtex.evaluation.scenes import SceneSettings, evaluate_scenes, open_scenes, write_report
    from virtex.training.precision import choose_precision

    name, images = str(arguments.checkpoint), arguments.images
    ((_, model),) = open_scenes(
        arguments.scenes,
        [name],
        config=arguments.config,
        tokenizer=arguments.tokenizer,
        images=images,
    )
    cpu = torch.device("cpu")
    settings = SceneSettings(choose_precision(False, cpu), cpu)
    found = evaluate_scenes(
        name, model, arguments.scenes, images, settings, _progress(arguments.quiet)
    )
    print(write_report(found.captioned, found.features, arguments.output))
    return 0


def scenes_results(arguments: argparse.Namespace) -> int:
    """As `run`, for the arguments of `virtex evaluate`; adds to results beside the checkpoints.

    `--output` is a directory here, as that of `virtex evaluate-scenes`.
    """
    from virtex.evaluation.heads import EvaluatedModel
    from virtex.evaluation.opening import open_scene_models
    from virtex.evaluation.results import RESULTS, check_results, results_table
    from virtex.evaluation.scenes import evaluate_scenes, write_report

    _check(arguments)
    models, settings = open_scene_models(evaluation_options(arguments))
    for name, _ in models:
        check_results(Path(name).parent / RESULTS)
    results: list[Result] = []
    try:
        for name, model in models:
            found = evaluate_scenes(
                *(name, model, arguments.data, arguments.images, settings),
                _progress(arguments.quiet),
            )
            results += found.results
            keep_results(EvaluatedModel(name, model, found.results[0].checkpoint), found.results)
            if arguments.output is not None:
                print(write_report(found.captioned, found.features, arguments.output))
    finally:
        if results and arguments.output is None:  # also if a later checkpoint fails
            print(results_table(results))
    return 0


def _progress(quiet: bool) -> "SceneProgress":
    @contextmanager
    def begin(label: str, images: int | None) -> Iterator[Callable[[int], None]]:
        with Progress(label, images, "images", quiet=quiet) as progress:
            yield progress.advance

    return begin


def _check(arguments: argparse.Namespace) -> None:
    if arguments.output is None:
        return
    if len(arguments.checkpoints) > 1:
        raise UserError("--output holds the captions of one checkpoint; give one, or no --output")
    if arguments.output.is_file():
        raise UserError(f"--output {arguments.output} is a file; scenes needs a directory")
    if arguments.output.resolve() == Path(arguments.checkpoints[0]).resolve().parent:
        raise UserError(
            f"--output {arguments.output} is the directory of the checkpoint, where results.json "
            "holds the results of all protocols; name another directory"
        )
    check_writable(arguments.output)

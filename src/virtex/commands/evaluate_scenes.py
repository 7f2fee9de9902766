"""`virtex evaluate scenes`: the accuracy of captions and features on held-out scenes.

`virtex evaluate-scenes`, its earlier form, works for one more release.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from virtex.commands.arguments import (
    add_checkpoint_arguments,
    add_int,
    add_quiet_argument,
    load_checkpoint,
    local_path,
)
from virtex.commands.progress import Progress
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.evaluation.results import Result
    from virtex.evaluation.scenes import CaptionedScene, Features
    from virtex.inference.pretrained import Pretrained

_Found = tuple["list[CaptionedScene] | None", "Features"]


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
    from virtex.evaluation.scenes import write_report

    pretrained = load_checkpoint(arguments)
    found = _evaluate(pretrained, arguments.scenes, arguments.images, quiet=arguments.quiet)
    print(write_report(*found, arguments.output))
    return 0


def evaluate_scenes(arguments: argparse.Namespace) -> int:
    """As `run`, for the arguments of `virtex evaluate`; adds to results beside the checkpoints.

    `--output` is a directory here, as that of `virtex evaluate-scenes`.
    """
    from virtex.data.sources.labelled import read_labelled
    from virtex.evaluation.results import RESULTS, add_results, check_results, results_table
    from virtex.evaluation.scenes import scene_results, write_report
    from virtex.inference.pretrained import load

    _check(arguments)
    paths = [local_path(name) for name in arguments.checkpoint]
    models = [load(path, config=arguments.config, tokenizer=arguments.tokenizer) for path in paths]
    read_labelled(arguments.data / "imagefolder")  # its errors, before work starts
    for path in paths:
        check_results(path.parent / RESULTS)
    results: list[Result] = []
    for path, model in zip(paths, models, strict=True):
        found = _evaluate(model, arguments.data, arguments.images or 100, quiet=arguments.quiet)
        own = scene_results(model, arguments.data, *found, name=str(path))
        add_results(path.parent / RESULTS, own)
        results += own
        if arguments.output is not None:
            print(write_report(*found, arguments.output))
    if arguments.output is None:
        print(results_table(results))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    for name in arguments.checkpoint:
        if name in ("random", "torchvision"):
            raise UserError(
                f"--checkpoint {name}: scenes needs the checkpoint of a run, which it also "
                "compares with random weights"
            )
    if arguments.output is None:
        return
    if len(arguments.checkpoint) > 1:
        raise UserError("--output holds the captions of one checkpoint; give one, or no --output")
    if arguments.output.is_file():
        raise UserError(f"--output {arguments.output} is a file; scenes needs a directory")
    if arguments.output.resolve() == Path(arguments.checkpoint[0]).resolve().parent:
        raise UserError(
            f"--output {arguments.output} is the directory of the checkpoint, where results.json "
            "holds the results of all protocols; name another directory"
        )


def _evaluate(pretrained: "Pretrained", scenes: Path, images: int, *, quiet: bool) -> _Found:
    from virtex.evaluation.scenes import caption_scenes, compare_features

    captioned = None
    if pretrained.can_caption:
        with Progress("captions", images, "images", quiet=quiet) as progress:
            captioned = caption_scenes(pretrained, scenes, images, progress.advance)
    with Progress("features", None, "images", quiet=quiet) as progress:
        features = compare_features(pretrained, scenes, progress.advance)
    return captioned, features

"""`virtex evaluate-scenes`: the accuracy of captions and features on held-out scenes."""

import argparse

from virtex.commands.arguments import (
    add_checkpoint_arguments,
    add_int,
    add_quiet_argument,
    load_checkpoint,
    local_path,
)
from virtex.commands.progress import Progress


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
    from virtex.evaluation.scenes import caption_scenes, compare_features, write_report

    pretrained = load_checkpoint(arguments)
    captioned = None
    if pretrained.can_caption:
        with Progress("captions", arguments.images, "images", quiet=arguments.quiet) as progress:
            captioned = caption_scenes(
                pretrained, arguments.scenes, arguments.images, progress.advance
            )
    with Progress("features", None, "images", quiet=arguments.quiet) as progress:
        features = compare_features(pretrained, arguments.scenes, progress.advance)
    print(write_report(captioned, features, arguments.output))
    return 0

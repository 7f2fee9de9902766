"""The protocols of `virtex evaluate` that use the captioning head of a model."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from virtex.commands.arguments import add_int, evaluation_options, local_path
from virtex.commands.evaluate_results import check_results_of
from virtex.commands.progress import Progress

if TYPE_CHECKING:
    from virtex.evaluation.heads import EvaluatedModel
    from virtex.evaluation.results import Result

HEAD_PROTOCOLS = {
    "captioning": "BLEU, ROUGE-L and CIDEr-D of generated captions, and how many are distinct",
    "zero-shot": "which class's name is the most likely text? Needs one label an image",
    "retrieval": "are an image and its caption found by each other's likelihood?",
}


def add_head_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that only protocols of the captioning head have."""
    group = parser.add_argument_group("protocols that use the captioning head")
    group.add_argument(
        "--tokenizer",
        type=local_path,
        metavar="FILE",
        help="SentencePiece model (default: the one in the checkpoint, otherwise "
        "DATA.TOKENIZER_MODEL)",
    )
    add_int(
        group,
        "--batch-size",
        "number of images per batch (default: 32; 16 where a head is trained)",
    )
    group.add_argument(
        "--tokenize",
        choices=("ptb", "international", "characters"),
        help="captioning: tokens of the captions, as for `virtex score` (default: ptb)",
    )
    group.add_argument(
        "--predictions",
        type=local_path,
        metavar="FILE",
        help="captioning: write the generated captions, one JSON object per line; an existing file "
        "is overwritten",
    )
    group.add_argument(
        "--template",
        action="append",
        metavar="TEXT",
        help="zero-shot: a prompt with {} in the place of the class; several are averaged "
        "(default: 'a photo of a {}')",
    )
    group.add_argument(
        "--class-names",
        type=local_path,
        metavar="FILE",
        help="zero-shot: a name a line, in the order of the classes (default: the names in the "
        "data, with blanks in place of underscores)",
    )
    add_int(group, "--pairs", "retrieval: largest number of pairs (default: 1,000)")


def head_results(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[EvaluatedModel, list[Result]]]":
    """Check everything, then give each model with its results; raises `UserError`."""
    from virtex.evaluation.heads import evaluate_heads
    from virtex.evaluation.opening import open_heads

    evaluation, models, settings = open_heads(evaluation_options(arguments))
    for model in models:
        check_results_of(model, arguments.output)
    images = len(evaluation.paths) * len(models)
    with Progress(arguments.protocol, images, "images", quiet=arguments.quiet) as progress:
        for line in evaluation.report:
            progress.note(line)
        settings = replace(settings, say=progress.note, advance=progress.advance)
        yield from evaluate_heads(
            arguments.protocol, evaluation, models, settings, seed=arguments.seed
        )

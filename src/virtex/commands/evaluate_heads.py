"""The protocols of `virtex evaluate` that use the captioning head of a model."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from virtex.commands.arguments import add_int, device_name, image_limits, local_path
from virtex.commands.progress import Progress
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.evaluation.heads import EvaluatedModel, HeadEvaluation
    from virtex.evaluation.results import Result

HEAD_PROTOCOLS = {
    "captioning": "BLEU, ROUGE-L and CIDEr-D of generated captions, and how many are distinct",
    "zero-shot": "which class's name is the most likely text? Needs one label an image",
    "retrieval": "are an image and its caption found by each other's likelihood?",
}

_PAIRS = 1000
_OPTIONS = {
    "tokenizer": (*HEAD_PROTOCOLS, "scenes"),
    "batch_size": tuple(HEAD_PROTOCOLS),
    "tokenize": ("captioning",),
    "predictions": ("captioning",),
    "template": ("zero-shot",),
    "class_names": ("zero-shot",),
    "pairs": ("retrieval",),
    "images": ("scenes",),
}
"""Options that not every protocol has; None where they are not given."""
_OF_BACKBONES = ("network", "image_size", "cache_dir", "processes")


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
    add_int(group, "--batch-size", "number of images per batch (default: 32)")
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
    add_int(group, "--pairs", f"retrieval: largest number of pairs (default: {_PAIRS:,})")


def check_options(arguments: argparse.Namespace) -> None:
    """Raise `UserError` for an option that the protocol does not have."""
    protocol = arguments.protocol
    for name, protocols in _OPTIONS.items():
        if protocol not in protocols and getattr(arguments, name) is not None:
            raise UserError(f"{_flag(name)} is an option of {', '.join(protocols)}, not {protocol}")
    for name in _OF_BACKBONES:
        if protocol in (*HEAD_PROTOCOLS, "scenes") and getattr(arguments, name) is not None:
            raise UserError(
                f"{_flag(name)} is an option of protocols on frozen features, not {protocol}"
            )


def head_results(
    arguments: argparse.Namespace,
) -> "Iterator[tuple[EvaluatedModel, list[Result]]]":
    """Check everything, then give each model with its results; raises `UserError`."""
    import torch

    from virtex.evaluation.features import check_images
    from virtex.evaluation.heads import HeadSettings, evaluate_heads, open_models
    from virtex.training.precision import named_precision

    _check_predictions(arguments)
    evaluation = _open(arguments)
    check_images(evaluation.paths, arguments.on_bad_image)
    models = open_models(
        arguments.checkpoint,
        config=arguments.config,
        tokenizer=arguments.tokenizer,
        limits=image_limits(arguments),
    )
    device = torch.device(device_name(arguments.device))
    # Differences of likelihoods are small beside the likelihoods, so auto is float32 everywhere.
    exact = arguments.precision == "auto"
    precision = named_precision("float32" if exact else arguments.precision, device)
    images = len(evaluation.paths) * len(models)
    with Progress(arguments.protocol, images, "images", quiet=arguments.quiet) as progress:
        for line in evaluation.report:
            progress.note(line)
        settings = HeadSettings(
            precision=precision,
            device=device,
            batch_size=32 if arguments.batch_size is None else arguments.batch_size,
            workers=arguments.cpu_workers,
            on_bad_image=arguments.on_bad_image,
            say=progress.note,
            advance=progress.advance,
        )
        yield from evaluate_heads(
            arguments.protocol, evaluation, models, settings, seed=arguments.seed
        )


def _open(arguments: argparse.Namespace) -> "HeadEvaluation":
    from virtex.evaluation.captioning import open_captioning
    from virtex.evaluation.retrieval import open_retrieval
    from virtex.evaluation.zero_shot import DEFAULT_TEMPLATES, open_zero_shot

    match arguments.protocol:
        case "captioning":
            return open_captioning(
                arguments.data,
                tokenize=arguments.tokenize or "ptb",
                predictions=arguments.predictions,
            )
        case "zero-shot":
            return open_zero_shot(
                arguments.data,
                templates=arguments.template or DEFAULT_TEMPLATES,
                class_names=arguments.class_names,
            )
        case _:
            return open_retrieval(
                arguments.data,
                pairs=_PAIRS if arguments.pairs is None else arguments.pairs,
                seed=arguments.seed,
            )


def _check_predictions(arguments: argparse.Namespace) -> None:
    path = arguments.predictions
    if path is None:
        return
    if len(arguments.checkpoint) > 1:
        raise UserError("--predictions is for the captions of one model; give one --checkpoint")
    if path.is_dir():
        raise UserError(f"--predictions {path} is a directory; name a file in it")
    if arguments.output is not None and path.resolve() == arguments.output.resolve():
        raise UserError(f"--predictions {path} is also the --output; name another file")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"

"""`virtex score`: metrics of predicted captions against reference captions."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from virtex._version import __version__
from virtex.commands.arguments import local_path
from virtex.errors import UserError, first_few
from virtex.files import write_whole

if TYPE_CHECKING:
    from virtex.metrics import CaptionScores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `virtex score`."""
    parser.add_argument(
        "predictions",
        type=local_path,
        metavar="PREDICTIONS",
        help="one caption per image: COCO results (.json), JSON lines or a table (.jsonl, .csv, "
        ".tsv) with image_id and caption, or the output of `virtex caption`, whose images are "
        "found by the names of their files",
    )
    parser.add_argument(
        "references",
        type=local_path,
        metavar="REFERENCES",
        help="one or more captions per image: COCO captions (.json), or JSON lines or a table "
        "with a row for each caption",
    )
    parser.add_argument(
        "--tokenize",
        choices=("ptb", "international", "characters"),
        default="ptb",
        help="tokens of the captions: English words as in the COCO caption evaluation (ptb), words "
        "and punctuation of other languages (international), or characters, for languages without "
        "blanks between words (default: %(default)s)",
    )
    parser.add_argument(
        "--chrf",
        action="store_true",
        help="also compute chrF, an F-score of character n-grams, on a scale of 0 to 100",
    )
    parser.add_argument(
        "--meteor-jar",
        type=local_path,
        metavar="FILE",
        help="meteor-1.5.jar, to also compute METEOR, which needs Java",
    )
    parser.add_argument(
        "--subset",
        action="store_true",
        help="score only the images that have a prediction (default: a missing one is an error)",
    )
    group = parser.add_argument_group("output (existing files are overwritten)")
    group.add_argument(
        "--output", type=local_path, metavar="FILE", help="also write the scores as JSON"
    )
    group.add_argument(
        "--per-image",
        type=local_path,
        metavar="FILE",
        help="write the scores of each image, one JSON object per line",
    )


def run(arguments: argparse.Namespace) -> int:
    """Read, score, print and write; raises `UserError`."""
    # Here, so that `--help` answers at once.
    from virtex.evaluation.caption_files import match_images, read_predictions, read_references
    from virtex.metrics import caption_scores

    _check_outputs(arguments)
    references = read_references(arguments.references)
    predictions = read_predictions(arguments.predictions, references)
    scores = caption_scores(
        predictions,
        match_images(arguments.predictions, predictions, references, subset=arguments.subset),
        arguments.tokenize,
        chrf=arguments.chrf,
        meteor_jar=arguments.meteor_jar,
    )
    if scores.without_words:
        print(
            f"virtex score: warning: predictions without words: {first_few(scores.without_words)}"
            f" ({len(scores.without_words)} in all)",
            file=sys.stderr,
        )
    _print(scores)
    if arguments.output is not None:
        content = json.dumps(_summary(scores, arguments), indent=1) + "\n"
        write_whole(arguments.output, content.encode())
    if arguments.per_image is not None:
        write_whole(arguments.per_image, _lines(scores).encode())
    return 0


def _check_outputs(arguments: argparse.Namespace) -> None:
    """Raise UserError where an output would overwrite an input, or the other output."""
    taken: list[Path] = [arguments.predictions.resolve(), arguments.references.resolve()]
    for flag, path in (("--output", arguments.output), ("--per-image", arguments.per_image)):
        if path is None:
            continue
        if path.is_dir():
            raise UserError(f"{flag} {path} is a directory; name a file in it")
        if path.resolve() in taken:
            raise UserError(f"{flag} {path} is already the name of another file; choose another")
        taken.append(path.resolve())


def _print(scores: "CaptionScores[str]") -> None:
    print(f"{'images':<10}{len(scores.per_image):,} with {scores.references:,} references")
    print(f"{'tokenizer':<10}{scores.tokenize}")
    for name, value in scores.corpus.items():
        print(f"{name:<10}{value:.{2 if name == 'chrF' else 4}f}")
    for name, reason in scores.not_available.items():
        print(f"{name:<10}not available: {reason}")


def _summary(scores: "CaptionScores[str]", arguments: argparse.Namespace) -> dict[str, object]:
    counts = scores.bleu_counts
    return {
        "scores": dict(scores.corpus),
        "not_available": dict(scores.not_available),
        "tokenize": scores.tokenize,
        "images": len(scores.per_image),
        "references": scores.references,
        "prediction_length": counts.length,
        "reference_length": counts.reference_length,
        "ngram_matches": counts.matches,
        "ngram_guesses": counts.guesses,
        "files": {
            "predictions": str(arguments.predictions),
            "references": str(arguments.references),
        },
        "versions": {"virtex": __version__},
    }


def _lines(scores: "CaptionScores[str]") -> str:
    return "".join(
        json.dumps({"image_id": int(image) if image.isdigit() else image, **values}) + "\n"
        for image, values in scores.per_image.items()
    )

"""All metrics of a corpus of captions at once."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from virtex.errors import UserError, first_few
from virtex.metrics.bleu import BleuCounts, bleu, count_matches, total
from virtex.metrics.cider import cider_d
from virtex.metrics.meteor import find_java, meteor
from virtex.metrics.ngrams import Tokens, count_ngrams
from virtex.metrics.rouge import rouge_l
from virtex.metrics.tokenizers import TokenizerName, find_tokenizer, import_sacrebleu

Key = TypeVar("Key", bound=Hashable)
_BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


@dataclass(frozen=True)
class CaptionScores(Generic[Key]):
    """The metrics of a corpus and of each image, under the names of the COCO caption evaluation.

    `Bleu_1` to `Bleu_4`, `ROUGE_L` and `METEOR` lie between 0 and 1, `CIDEr` (which is CIDEr-D)
    between 0 and 10, `chrF` between 0 and 100. All numbers are float64.
    """

    tokenize: TokenizerName
    corpus: Mapping[str, float]
    per_image: Mapping[Key, Mapping[str, float]]
    bleu_counts: BleuCounts
    references: int
    """How many reference captions there are."""
    without_words: tuple[Key, ...]
    """The images whose prediction has no token."""
    not_available: Mapping[str, str]
    """Metrics that were not computed, with the reason."""


def caption_scores(
    predictions: Mapping[Key, str],
    references: Mapping[Key, Sequence[str]],
    tokenize: TokenizerName = "ptb",
    *,
    chrf: bool = False,
    meteor_jar: Path | None = None,
) -> CaptionScores[Key]:
    """Score one predicted caption per image against its one or more reference captions.

    Both mappings have the same keys. The scores depend neither on the order of the images nor on
    that of the references of an image.

    Args:
        predictions: the caption of each image, as text.
        references: the reference captions of each image, as text.
        tokenize: how captions are divided into tokens; see `virtex.metrics.tokenizers`.
        chrf: whether to compute chrF (Popović, WMT 2015) with sacrebleu, of the texts themselves;
            it takes longer than all others together.
        meteor_jar: the file meteor-1.5.jar; without it, or without Java, METEOR is not available.

    Raises:
        UserError: keys that do not match, an image without references, no image, a blank caption,
            or a library that is not installed.
        RunError: Java failed.
    """
    _check_captions(predictions, references)
    _check_options(tokenize, chrf=chrf, meteor_jar=meteor_jar)
    # Java's sums are in the order of the images.
    keys = sorted(predictions, key=repr)
    tokens_of = find_tokenizer(tokenize)
    predicted = [tokens_of(predictions[key]) for key in keys]
    referred = [[tokens_of(caption) for caption in references[key]] for key in keys]

    counts, columns = _own_metrics(predicted, referred)
    sums = total(counts)
    corpus = dict(zip(_BLEU, bleu(sums), strict=True))
    corpus |= {name: math.fsum(columns[name]) / len(keys) for name in ("ROUGE_L", "CIDEr")}
    not_available = {}
    java = find_java()
    if meteor_jar is None:
        not_available["METEOR"] = "no meteor-1.5.jar was given; name it with --meteor-jar"
    elif java is None:
        not_available["METEOR"] = "Java is required, and the program java is not on the PATH"
    else:
        corpus["METEOR"], columns["METEOR"] = meteor(java, meteor_jar, predicted, referred)
    if chrf:
        texts = [predictions[key] for key in keys]
        corpus["chrF"], columns["chrF"] = _chrf(texts, [references[key] for key in keys])
    rows = {
        key: {name: column[row] for name, column in columns.items()} for row, key in enumerate(keys)
    }
    return CaptionScores(
        tokenize=tokenize,
        corpus=corpus,
        per_image={key: rows[key] for key in predictions},
        bleu_counts=sums,
        references=sum(map(len, referred)),
        without_words=tuple(key for key, tokens in zip(keys, predicted, strict=True) if not tokens),
        not_available=not_available,
    )


def _check_options(tokenize: TokenizerName, *, chrf: bool, meteor_jar: Path | None) -> None:
    if meteor_jar is not None and tokenize != "ptb":
        raise UserError("METEOR is for English: it needs the tokenizer ptb")
    if meteor_jar is not None and not meteor_jar.is_file():
        raise UserError(f"{meteor_jar} does not exist; expected meteor-1.5.jar")
    if chrf:
        import_sacrebleu("chrF")


def _check_captions(
    predictions: Mapping[Key, str], references: Mapping[Key, Sequence[str]]
) -> None:
    if not predictions:
        raise UserError("the predictions hold no caption")
    findings = {
        "images with a prediction and no reference": predictions.keys() - references.keys(),
        "images with references and no prediction": references.keys() - predictions.keys(),
        "images with an empty list of references": {k for k, v in references.items() if not v},
        "images with a blank prediction": {k for k, v in predictions.items() if not v.strip()},
        "images with a blank reference": {
            key for key, captions in references.items() if not all(map(str.strip, captions))
        },
    }
    problems = [
        f"{what}: {first_few(sorted(keys, key=repr))} ({len(keys)} in all)"
        for what, keys in findings.items()
        if keys
    ]
    if problems:
        raise UserError("; ".join(problems))


def _own_metrics(
    predicted: Sequence[Tokens], referred: Sequence[Sequence[Tokens]]
) -> tuple[list[BleuCounts], dict[str, list[float]]]:
    """The BLEU counts, and each metric of this package, of each image."""
    prediction_ngrams = [count_ngrams(tokens) for tokens in predicted]
    reference_ngrams = [[count_ngrams(tokens) for tokens in image] for image in referred]
    counts = [
        count_matches(
            ngrams, len(tokens), [(n, len(t)) for n, t in zip(others, image, strict=True)]
        )
        for ngrams, tokens, others, image in zip(
            prediction_ngrams, predicted, reference_ngrams, referred, strict=True
        )
    ]
    columns = dict(zip(_BLEU, map(list, zip(*map(bleu, counts), strict=True)), strict=True))
    columns["ROUGE_L"] = [
        rouge_l(tokens, image) for tokens, image in zip(predicted, referred, strict=True)
    ]
    columns["CIDEr"] = cider_d(prediction_ngrams, reference_ngrams)
    return counts, columns


def _chrf(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """chrF of the corpus and of each image, (N,), between 0 and 100."""
    metric = import_sacrebleu("chrF").CHRF()
    most = max(map(len, references))
    # sacrebleu wants the first references of all images, then the second ones, …
    columns = [[image[n] if n < len(image) else None for image in references] for n in range(most)]
    scores = [
        metric.sentence_score(prediction, list(image)).score
        for prediction, image in zip(predictions, references, strict=True)
    ]
    return metric.corpus_score(list(predictions), columns).score, scores

"""BLEU of a corpus and of its sentences (Papineni et al., ACL 2002).

As in the published COCO caption evaluation, the reference length of a sentence is the closest one
(the shorter of two that are as close), and tiny constants stand in for smoothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from virtex.metrics.ngrams import LONGEST, NgramCounts

# The constants of the published evaluation: a precision without matches is not exactly 0, and
# nothing is divided by 0. A perfect caption has 1 - 1e-10 or so, never more than 1.
_TINY = 1e-15
_SMALL = 1e-9


@dataclass(frozen=True)
class BleuCounts:
    """What BLEU is computed from, summed over any number of sentences; lengths in tokens."""

    length: int = 0
    reference_length: int = 0
    matches: tuple[int, ...] = (0,) * LONGEST
    """Clipped matches of n-grams with 1, 2, … tokens, (4,)."""
    guesses: tuple[int, ...] = (0,) * LONGEST
    """The n-grams of the predictions, (4,)."""


def count_matches(
    prediction: NgramCounts, length: int, references: Sequence[tuple[NgramCounts, int]]
) -> BleuCounts:
    """The counts of one sentence of `length` tokens; references are n-grams with their length."""
    matches = []
    for order, ngrams in enumerate(prediction):
        others = [counts[order] for counts, _ in references]
        matches.append(
            sum(
                min(count, max(counts.get(ngram, 0) for counts in others))
                for ngram, count in ngrams.items()
            )
        )
    closest = min((abs(other - length), other) for _, other in references)[1]
    guesses = tuple(max(0, length - order) for order in range(LONGEST))
    return BleuCounts(length, closest, tuple(matches), guesses)


def total(sentences: Sequence[BleuCounts]) -> BleuCounts:
    """The sums over all sentences."""
    return BleuCounts(
        length=sum(counts.length for counts in sentences),
        reference_length=sum(counts.reference_length for counts in sentences),
        matches=tuple(map(sum, zip(*(counts.matches for counts in sentences), strict=True))),
        guesses=tuple(map(sum, zip(*(counts.guesses for counts in sentences), strict=True))),
    )


def bleu(counts: BleuCounts) -> list[float]:
    """BLEU-1 to BLEU-4, (4,), between 0 and 1."""
    ratio = (counts.length + _TINY) / (counts.reference_length + _SMALL)
    brevity_penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    scores, product = [], 1.0
    for order, (matches, guesses) in enumerate(
        zip(counts.matches, counts.guesses, strict=True), start=1
    ):
        product *= (matches + _TINY) / (guesses + _SMALL)
        scores.append(brevity_penalty * product ** (1 / order))
    return scores

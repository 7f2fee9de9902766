"""ROUGE-L, the F-measure of the longest common subsequence (Lin, ACL 2004, section 3).

As in the published COCO caption evaluation, recall counts 1.2 times as much as precision, and each
of them is the best over the references, which may be two different ones.
"""

from collections.abc import Sequence

from virtex.metrics.ngrams import Tokens

_BETA = 1.2


def rouge_l(prediction: Tokens, references: Sequence[Tokens]) -> float:
    """ROUGE-L of one sentence, between 0 and 1; 0 where nothing is common."""
    common = _common_lengths(prediction, references)
    # A caption without tokens has nothing in common; 1 keeps its division defined.
    precision = max(common) / max(len(prediction), 1)
    recall = max(
        shared / max(len(reference), 1)
        for shared, reference in zip(common, references, strict=True)
    )
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_lengths(prediction: Tokens, references: Sequence[Tokens]) -> list[int]:
    """The length of the longest common subsequence with each reference.

    A row of the usual table is one integer with a bit for each token of the prediction, 0 where the
    length increases (Crochemore et al., Information Processing Letters 80, 2001).
    """
    places: dict[str, int] = {}
    for position, token in enumerate(prediction):
        places[token] = places.get(token, 0) | 1 << position
    every = (1 << len(prediction)) - 1
    lengths = []
    for reference in references:
        row = every
        for token in reference:
            found = row & places.get(token, 0)
            row = ((row + found) | (row - found)) & every
        lengths.append(len(prediction) - row.bit_count())
    return lengths

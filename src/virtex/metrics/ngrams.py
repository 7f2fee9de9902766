"""Counts of the n-grams of a caption, which BLEU and CIDEr-D share."""

from collections import Counter
from collections.abc import Sequence

Tokens = Sequence[str]
NgramCounts = list[Counter[tuple[str, ...]]]
"""How often each n-gram of 1, 2, … `LONGEST` tokens occurs, (4,)."""

LONGEST = 4
"""Tokens in the longest n-grams."""


def count_ngrams(tokens: Tokens) -> NgramCounts:
    """The n-grams of a caption, each order apart."""
    return [
        Counter(zip(*(tokens[start:] for start in range(order)), strict=False))
        for order in range(1, LONGEST + 1)
    ]

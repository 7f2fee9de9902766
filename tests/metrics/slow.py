"""The metrics once more, slowly and directly from their formulas, for tokens."""

import math
from fractions import Fraction

TINY, SMALL = 1e-15, 1e-9
"""The constants that the published COCO evaluation adds to numerators and denominators of BLEU."""


def ngrams(tokens, order):
    return [tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1)]


def bleu(corpus, longest):
    """BLEU of pairs of a prediction and its references (Papineni et al., sections 2.1 to 2.3)."""
    product = 1.0
    for order in range(1, longest + 1):
        clipped = count = 0
        for prediction, references in corpus:
            found = ngrams(prediction, order)
            count += len(found)
            for ngram in set(found):
                most = max(ngrams(reference, order).count(ngram) for reference in references)
                clipped += min(found.count(ngram), most)
        product *= (clipped + TINY) / (count + SMALL)
    c = sum(len(prediction) for prediction, _ in corpus)
    r = 0
    for prediction, references in corpus:
        lengths = sorted(len(reference) for reference in references)
        r += min(lengths, key=lambda length: abs(length - len(prediction)))
    ratio = (c + TINY) / (r + SMALL)
    return min(1.0, math.exp(1 - 1 / ratio)) * product ** (1 / longest)


def common_length(one, other):
    """The length of the longest common subsequence, by the textbook's table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, left in enumerate(one):
        for j, right in enumerate(other):
            longer = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if left == right else longer
    return table[-1][-1]


def rouge_l(prediction, references):
    """The F-measure with beta 1.2 of the best precision and the best recall, in fractions."""
    common = [common_length(prediction, reference) for reference in references]
    if not max(common):
        return 0.0
    p = Fraction(max(common), len(prediction))
    r = max(Fraction(n, len(ref)) for n, ref in zip(common, references, strict=True) if ref)
    beta = Fraction(12, 10)
    return float((1 + beta**2) * r * p / (r + beta**2 * p))


def cider_d(corpus, image):
    """CIDEr-D of one image of the corpus (Vedantam et al., equations 1 to 4)."""

    def weight(ngram, tokens):
        containing = sum(
            any(ngram in ngrams(reference, len(ngram)) for reference in references)
            for _, references in corpus
        )
        count = ngrams(tokens, len(ngram)).count(ngram)
        return count * (math.log(len(corpus)) - math.log(max(1, containing)))

    prediction, references = corpus[image]
    total = 0.0
    for reference in references:
        bigrams = len(ngrams(prediction, 2)) - len(ngrams(reference, 2))
        penalty = math.exp(-(bigrams**2) / (2 * 6.0**2))
        for order in range(1, 5):
            ours, theirs = set(ngrams(prediction, order)), set(ngrams(reference, order))
            norms = [
                math.sqrt(sum(weight(ngram, tokens) ** 2 for ngram in found))
                for found, tokens in ((ours, prediction), (theirs, reference))
            ]
            product = sum(
                min(weight(ngram, prediction), weight(ngram, reference)) * weight(ngram, reference)
                for ngram in ours & theirs
            )
            if all(norms):
                total += penalty * product / math.prod(norms)
    return 10 * total / 4 / len(references)

"""CIDEr-D (Vedantam et al., CVPR 2015, sections 4 and 5; the published COCO caption evaluation)."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain

from virtex.metrics.ngrams import LONGEST, NgramCounts

_SIGMA = 6.0
_SCALE = 10.0

_Weights = dict[tuple[str, ...], float]


def cider_d(
    predictions: Sequence[NgramCounts], references: Sequence[Sequence[NgramCounts]]
) -> list[float]:
    """CIDEr-D of each image, (N,), between 0 and 10.

    The weight of an n-gram falls with the number of images in whose references it occurs, so scores
    depend on the whole corpus; an n-gram of all images weighs nothing. The penalty for a different
    length counts bigrams, as the published evaluation does.
    """
    inverse_frequencies = [
        _inverse_frequencies([[caption[order] for caption in image] for image in references])
        for order in range(LONGEST)
    ]
    # An n-gram of no reference weighs as one of a single image.
    most = math.log(len(references))

    def vectors(caption: NgramCounts) -> list[tuple[_Weights, float]]:
        """The weights of the n-grams of each order, with their norm."""
        found = []
        for counts, inverse in zip(caption, inverse_frequencies, strict=True):
            weights = {ngram: count * inverse.get(ngram, most) for ngram, count in counts.items()}
            found.append((weights, math.sqrt(sum(weight * weight for weight in weights.values()))))
        return found

    scores = []
    for prediction, image in zip(predictions, references, strict=True):
        predicted = vectors(prediction)
        similarities = (
            _penalty(prediction, reference) * _clipped_cosine(predicted, vectors(reference))
            for reference in image
        )
        # fsum gives the same for every order of the references.
        scores.append(_SCALE * math.fsum(similarities) / len(image))
    return scores


def _inverse_frequencies(references: Sequence[Sequence[Collection[tuple[str, ...]]]]) -> _Weights:
    """The logarithm of N over the number of images in whose references an n-gram occurs."""
    frequencies = Counter(chain.from_iterable(set().union(*image) for image in references))
    most = math.log(len(references))
    return {ngram: most - math.log(count) for ngram, count in frequencies.items()}


def _penalty(prediction: NgramCounts, reference: NgramCounts) -> float:
    difference = prediction[1].total() - reference[1].total()
    return math.exp(-(difference**2) / (2 * _SIGMA**2))


def _clipped_cosine(
    prediction: Sequence[tuple[_Weights, float]], reference: Sequence[tuple[_Weights, float]]
) -> float:
    """The cosine of the weights, of which the prediction's count at most as the reference's.

    It is averaged over the orders, also over those for which a caption is too short.
    """
    total = 0.0
    for (weights, norm), (others, other_norm) in zip(prediction, reference, strict=True):
        if norm and other_norm:
            product = sum(
                min(weight, others[ngram]) * others[ngram]
                for ngram, weight in weights.items()
                if ngram in others
            )
            total += product / (norm * other_norm)
    return total / LONGEST

"""Which words the captions of an image have, predicted from its features.

A measure for data with captions and without labels. It needs no list of stop words.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from virtex.errors import UserError
from virtex.evaluation.figures import Figure
from virtex.evaluation.protocols.linear import PENALTIES, linear
from virtex.evaluation.protocols.split import Split, check_features
from virtex.text.scripts import is_unspaced

# The words of training images: rarer ones have too few positives, and what most images have tells
# little about one of them.
RAREST, MOST_FREQUENT = 0.02, 0.5
FEWEST_IMAGES = 10
COUNT = 100


def words(
    train_captions: Sequence[Sequence[str]],
    train: Tensor,
    test_captions: Sequence[Sequence[str]],
    test: Tensor,
    count: int = COUNT,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
    chosen: tuple[str, ...] | None = None,
) -> list[Figure]:
    """Figures of a binary logistic regression a word: is it in any caption of the image?

    `train` and `test` are features (N, C), with the captions of each image. The words are those of
    `choose_words`, named in the settings; `chosen` gives them where they are known already.
    `advance` counts the penalties of `linear`.
    """
    check_features(train, test)
    assert len(train_captions) == len(train)
    assert len(test_captions) == len(test)
    if chosen is None:
        chosen = choose_words(train_captions, test_captions, count)
    figures = linear(
        Split(train, _labels(train_captions, chosen), chosen),
        Split(test, _labels(test_captions, chosen), chosen),
        seed,
        PENALTIES,
        advance,
    )
    return [replace(f, settings={**f.settings, "words": chosen}) for f in figures]


def choose_words(
    train_captions: Sequence[Sequence[str]],
    test_captions: Sequence[Sequence[str]],
    count: int = COUNT,
) -> tuple[str, ...]:
    """The most informative words, at most `count`, the most informative first.

    Candidates are in the captions of 2 % to 50 % of the training images and of at least 10 images
    of each split. Where images have several captions, the information of a word is the mutual
    information of its presence in two captions of one image: captions agree on what the image
    shows, and hardly on articles. Where no image has two, it is the entropy of its presence.
    """
    of_images = [[frozenset(split_words(text)) for text in texts] for texts in train_captions]
    images = Counter(word for texts in of_images for word in frozenset().union(*texts))
    tested = Counter(
        word
        for texts in test_captions
        for word in {word for text in texts for word in split_words(text)}
    )
    candidates = sorted(
        word
        for word, number in images.items()
        if RAREST * len(of_images) <= number <= MOST_FREQUENT * len(of_images)
        and number >= FEWEST_IMAGES
        and tested[word] >= FEWEST_IMAGES
    )
    if not candidates:
        raise UserError(
            f"no word is in the captions of {RAREST:.0%} to {MOST_FREQUENT:.0%} of the training "
            f"images and of at least {FEWEST_IMAGES} images of each split"
        )
    if any(len(texts) > 1 for texts in of_images):
        information = _agreement(of_images, candidates)
    else:
        share = np.array([images[word] / len(of_images) for word in candidates])
        information = _entropy(np.stack([share, 1 - share]))
    # Rounded, so that words of equal counts stay in alphabetical order.
    order = np.argsort(-information.round(12), kind="stable")
    return tuple(candidates[position] for position in order[:count])


def split_words(text: str) -> Iterator[str]:
    """The words of a caption in NFKC and lower case.

    A word is a run of letters, digits and marks, of two characters or more. In scripts without
    spaces, each two neighbouring characters count as a word.
    """
    for kind, run in groupby(unicodedata.normalize("NFKC", text).lower(), _kind):
        word = "".join(run)
        if kind == "unspaced":
            yield from (word[at : at + 2] for at in range(max(len(word) - 1, 1)))
        elif kind == "spaced" and len(word) > 1:
            yield word


@cache
def _kind(character: str) -> str:
    if unicodedata.category(character)[0] not in "LMN":
        return "separator"
    return "unspaced" if is_unspaced(character) else "spaced"


def _labels(captions: Sequence[Sequence[str]], chosen: Sequence[str]) -> Tensor:
    """(N, K) int8: 1 where a caption of the image has the word, otherwise -1."""
    columns = {word: column for column, word in enumerate(chosen)}
    labels = torch.full((len(captions), len(chosen)), -1, dtype=torch.int8)
    for row, texts in enumerate(captions):
        present = {columns[w] for text in texts for w in split_words(text) if w in columns}
        labels[row, sorted(present)] = 1
    return labels


def _agreement(
    of_images: Sequence[Sequence[frozenset[str]]], candidates: Sequence[str]
) -> npt.NDArray[np.float64]:
    """Mutual information in nats between a word's presence in two captions of one image.

    Pairs of captions are ordered, and each image weighs the same.
    """
    several = [texts for texts in of_images if len(texts) > 1]
    both: dict[str, float] = defaultdict(float)
    one: dict[str, float] = defaultdict(float)
    for texts in several:
        pairs = len(texts) * (len(texts) - 1)
        for word, number in Counter(word for text in texts for word in text).items():
            both[word] += number * (number - 1) / pairs
            one[word] += number * (len(texts) - number) / pairs
    present = np.array([both[word] for word in candidates]) / len(several)
    split = np.array([one[word] for word in candidates]) / len(several)
    joint = np.stack([present, split, split, 1 - present - 2 * split])
    share = present + split
    return 2 * _entropy(np.stack([share, 1 - share])) - _entropy(joint)


def _entropy(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The entropy in nats over the first axis."""
    positive = np.clip(probabilities, 1e-300, 1.0)
    entropy: npt.NDArray[np.float64] = -(positive * np.log(positive)).sum(0)
    return entropy

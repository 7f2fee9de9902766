import math

import pytest
import torch
from tests.evaluation import gaussians

from virtex.errors import UserError
from virtex.evaluation.protocols.linear import linear
from virtex.evaluation.protocols.split import Split
from virtex.evaluation.protocols.words import choose_words, split_words, words


def repeated(*images, times):
    return [texts for texts in images for _ in range(times)]


def scenes(images, seed):
    """Captions of a dog or a cat, as the first feature tells, and features."""
    features = gaussians.normal(images, 4, seed=seed)
    animals = ["dog" if value > 0.8 else "cat" for value in features[:, 0].tolist()]
    return [(f"the {animal}", f"one {animal} here") for animal in animals], features


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog's BALL, two-tone.", ["dog", "ball", "two", "tone"]),
        ("Ein Über-Fuß №5", ["ein", "über", "fuß", "no5"]),
        ("café", ["café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("개가 달린다", ["개가", "달린다"]),
        ("赤い車 bus", ["赤い", "い車", "bus"]),
        ("猫", ["猫"]),
        ("", []),
    ],
)
def test_words_of_several_languages(text, expected):
    assert list(split_words(text)) == expected


def test_captions_agree_on_content_and_not_on_articles():
    """All are in one of four captions; two captions of an image share only the animal."""
    captions = repeated(
        ("the dog", "some dog"),
        ("the cat", "some cat"),
        ("two elk", "few elk"),
        ("two owls", "few owls"),
        times=10,
    )
    assert choose_words(captions, captions, 4) == ("cat", "dog", "elk", "owls")


def test_single_captions_prefer_words_of_half_the_images():
    captions = repeated(("red bus",), ("red car",), ("grey car",), ("blue van",), times=10)
    # `car` and `red` are in half of the images, the others in a quarter; equals are alphabetical.
    assert choose_words(captions, captions, 9) == ("car", "red", "blue", "bus", "grey", "van")


def test_the_information_of_a_word_by_hand():
    """Half of the images have `owl` in both captions, so one caption tells all of the other."""
    captions = repeated(("owl", "owl"), ("ant bee", "ant eel"), times=20)
    chosen = choose_words(captions, captions, 9)
    assert chosen[:2] == ("ant", "owl")
    # P(both) = 0, P(one) = 1/4 each way: less information than agreement, more than none.
    assert chosen[2:] == ("bee", "eel")


def test_words_that_are_rare_in_one_split_are_no_candidates():
    train = repeated(("red bus",), ("red car",), ("grey car",), ("blue van",), times=10)
    test = repeated(("red bus",), times=9) + repeated(("grey car",), times=10)
    assert choose_words(train, test, 9) == ("car", "grey")
    with pytest.raises(UserError, match="no word is in the captions of 2% to 50% of the training"):
        choose_words(train, test[:9], 9)


def test_words_in_most_or_in_few_images_are_no_candidates():
    train = repeated(("one red bus",), times=10) + repeated(("one car",), times=990)
    with pytest.raises(UserError, match="no word"):
        choose_words(train, train, 9)


def test_figures_are_those_of_linear_on_the_words():
    (train_captions, train), (test_captions, test) = scenes(120, 0), scenes(100, 1)
    figures = words(train_captions, train, test_captions, test, count=1)
    assert figures[0].settings["words"] == ("dog",)
    labels = [torch.where(x[:, :1] > 0.8, 1, -1).to(torch.int8) for x in (train, test)]
    expected = linear(Split(train, labels[0]), Split(test, labels[1]))
    assert [(f.metric, f.value, f.interval) for f in figures] == [
        (f.metric, f.value, f.interval) for f in expected
    ]
    assert figures[0].value > 90
    assert math.isfinite(figures[1].value)

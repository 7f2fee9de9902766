import numpy as np
import pytest

from virtex.evaluation.retrieval import ranks, retrieval


def values(figures):
    return {figure.metric: figure.value for figure in figures}


def test_the_rank_counts_wrong_items_that_are_at_least_as_high_as_the_best_correct_one():
    scores = np.array([[5.0, 4.0, 3.0], [5.0, 4.0, 3.0], [1.0, 1.0, 1.0]])
    correct = np.array([[True, False, False], [False, True, True], [False, False, True]])
    assert ranks(scores, correct).tolist() == [0, 1, 2]


def test_identical_captions_are_correct_for_each_other():
    """Image 0 finds the caption of image 1, which is the same text."""
    scores = np.array([[-2.0, -2.0, -9.0], [-8.0, -8.0, -5.0], [-7.0, -7.0, -1.0]])
    figures = values(retrieval(scores, np.array([0, 0, 1])))
    # Image 1 prefers the caption of image 2; as the first of two it is wrong.
    assert figures["image_to_text_recall_1"] == pytest.approx(200 / 3)
    assert figures["image_to_text_recall_5"] == 100
    # Image 0 is correct for the captions of both 0 and 1.
    assert figures["text_to_image_recall_1"] == 100
    apart = values(retrieval(scores, np.array([0, 1, 2])))
    assert apart["image_to_text_recall_1"] == pytest.approx(
        100 / 3
    )  # a tie with a wrong caption counts against
    assert apart["text_to_image_recall_1"] == pytest.approx(200 / 3)


def test_the_prior_takes_the_advantage_of_a_likely_caption_away():
    scores = np.array([[-1.0, -5.0, -6.0], [-2.0, -3.0, -6.0], [-2.0, -5.0, -4.0]])
    figures = values(retrieval(scores, np.arange(3)))
    assert figures["image_to_text_recall_1"] == pytest.approx(100 / 3)
    assert figures["image_to_text_less_prior_recall_1"] == 100


def test_figures_have_intervals_and_the_number_of_pairs():
    rng = np.random.default_rng(0)
    for figure in retrieval(rng.normal(size=(40, 40)), np.arange(40)):
        low, high = figure.interval
        assert low <= figure.value <= high
        assert (figure.settings["pairs"], figure.settings["captions"]) == (40, 40)

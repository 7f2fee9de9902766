import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from virtex.evaluation.figures import (
    auroc,
    average_precision,
    prediction_statistics,
    ranking_statistics,
    voc2007_average_precision,
)


@st.composite
def rankings(draw):
    """Scores with many ties, and labels of both kinds."""
    pairs = draw(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40))
    scores, positive = (np.array(column) for column in zip(*pairs, strict=True))
    positive[:2] = True, False
    return scores.astype(float), positive


def slow_auroc(scores, positive):
    pairs = list(itertools.product(scores[positive], scores[~positive]))
    return sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs)


def random_classes(images=60, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, (images, classes)).astype(float)
    return scores, rng.choice([-1, 0, 1], (images, classes)).astype(np.int8)


@settings(deadline=None, max_examples=40)
@given(rankings())
def test_ranking_metrics_equal_scikit_learns(ranking):
    scores, positive = ranking
    assert average_precision(scores, positive) == pytest.approx(
        average_precision_score(positive, scores), abs=1e-12
    )
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert auroc(scores, positive) == pytest.approx(slow_auroc(scores, positive), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(rankings(), st.randoms(use_true_random=False))
def test_ranking_metrics_depend_on_the_order_of_scores_alone(ranking, random):
    scores, positive = ranking
    order = list(range(len(scores)))
    random.shuffle(order)
    for metric in (average_precision, auroc, voc2007_average_precision):
        value = metric(scores, positive)
        assert metric(np.exp(scores / 3) - 7, positive) == value
        assert metric(scores[order], positive[order]) == value


def test_average_precision_by_hand():
    """Found at ranks 1 and 3: precisions 1 and 2/3, each for half of the positives."""
    scores, positive = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    # Recalls 0 to 0.5 have precision 1, the five others 2/3.
    assert voc2007_average_precision(scores, positive) == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert auroc(scores, positive) == 0.75


def test_eleven_points_take_the_best_precision_at_a_higher_recall():
    """Precision rises from 1/2 at the first positive to 2/3 at the second."""
    scores, positive = np.array([4.0, 3.0, 2.0, 1.0]), np.array([False, True, True, False])
    assert voc2007_average_precision(scores, positive) == pytest.approx(2 / 3)


def test_equal_scores_are_one_threshold():
    scores, positive = np.zeros(10), np.arange(10) < 3
    assert average_precision(scores, positive) == pytest.approx(0.3)
    assert auroc(scores, positive) == 0.5


def test_a_class_of_one_kind_has_no_value():
    for positive in (np.ones(3, bool), np.zeros(3, bool)):
        assert np.isnan([average_precision(np.arange(3.0), positive)]).all()
        assert np.isnan([auroc(np.arange(3.0), positive)]).all()


def test_means_cover_the_classes_that_have_both_kinds():
    scores, labels = random_classes()
    labels[:, 1] = np.where(labels[:, 1] == 1, 0, labels[:, 1])
    labels[:, 3] = 1
    statistics = ranking_statistics(scores, labels, ("ant", "bee", "cat", "dog"))
    expected = []
    for k in (0, 2):
        used = labels[:, k] != 0
        expected.append(average_precision_score(labels[used, k] == 1, scores[used, k]))
    assert statistics.values()["mAP"] == pytest.approx(100 * np.mean(expected))
    for figure in statistics.figures({"left_out": ("eel",)}, resamples=3):
        assert figure.settings["left_out"] == ("eel", "bee", "dog")
        assert figure.settings["classes_left_out"] == 3


def test_an_ignored_image_is_no_negative():
    scores, labels = random_classes()
    as_negative = np.where(labels == 0, -1, labels).astype(np.int8)
    ignored, counted = ranking_statistics(scores, labels), ranking_statistics(scores, as_negative)
    assert ignored.values()["mAP"] > counted.values()["mAP"] + 1


def test_accuracies_equal_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(2, 6, 50) ** 2, rng.integers(2, 6, 50) ** 2
    values = prediction_statistics(predicted, labels).values()
    assert values["top1"] == pytest.approx(100 * np.mean(labels == predicted))
    assert values["balanced_accuracy"] == pytest.approx(
        100 * balanced_accuracy_score(labels, predicted)
    )


def test_balanced_accuracy_weighs_classes_equally():
    """Nine of nine and none of one."""
    labels = np.array([0] * 9 + [1])
    values = prediction_statistics(np.zeros(10, np.int64), labels).values()
    assert values == {"top1": pytest.approx(90), "balanced_accuracy": pytest.approx(50)}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_counting_an_image_twice_equals_repeating_it(seed):
    """The weighted metrics of the bootstrap against the plain ones on repeated images."""
    scores, labels = random_classes(seed=seed)
    counts = np.random.default_rng(seed).integers(0, 3, (60, 2)).astype(np.float32)
    predicted, truth = scores.argmax(1), labels.argmax(1)
    ranked = ranking_statistics(scores, labels).compute(counts)
    right = prediction_statistics(predicted, truth).compute(counts)
    for column in (0, 1):
        rows = np.repeat(np.arange(60), counts[:, column].astype(int))
        repeated = ranking_statistics(scores[rows], labels[rows]).values()
        assert [*(100 * ranked[:, column])] == pytest.approx([*repeated.values()])
        plain = prediction_statistics(predicted[rows], truth[rows]).values()
        assert [*(100 * right[:, column])] == pytest.approx([*plain.values()])


def test_the_interval_of_an_accuracy_is_that_of_the_binomial_distribution():
    labels = np.zeros(400, np.int64)
    predicted = np.where(np.arange(400) < 300, 0, 1)
    top1, _ = prediction_statistics(predicted, labels).figures({})
    half = 196 * (0.75 * 0.25 / 400) ** 0.5
    # The quantiles of 1,000 resamples vary by about 5 % of the width, and values are 0.25 apart.
    assert top1.interval == pytest.approx((75 - half, 75 + half), abs=0.6)


def test_intervals_depend_on_the_seed_alone():
    statistics = ranking_statistics(*random_classes())
    assert statistics.figures({}) == statistics.figures({})
    assert statistics.figures({}, seed=1)[0].interval != statistics.figures({})[0].interval
    assert statistics.figures({}, seed=1)[0].value == statistics.figures({})[0].value


def test_a_resample_without_a_positive_has_no_value_and_no_warning():
    scores = np.arange(6.0)[:, None]
    labels = np.array([[-1], [-1], [-1], [-1], [1], [-1]], np.int8)
    precision, _ = ranking_statistics(scores, labels).figures({}, resamples=50)
    assert precision.value == 50
    assert 0 < precision.interval[0] < precision.interval[1] <= 100

import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import LinearSVC
from tests.evaluation import gaussians

from virtex.errors import UserError
from virtex.evaluation.protocols.split import Split
from virtex.evaluation.protocols.voc07 import COSTS, stratified_folds, voc07

ENGINES = ("sklearn", "torch")
NAMES = ("ant", "bee", "cat")
TRAIN = gaussians.several_labels(120, ignored=0.1, names=NAMES)
TEST = gaussians.several_labels(90, seed=5, ignored=0.1, names=NAMES)


def published(train, test):
    """The published protocol in scikit-learn's own functions: costs and APs of the classes."""
    inputs, queries = (
        (x / x.norm(dim=1, keepdim=True)).double().numpy() for x in (train.features, test.features)
    )
    costs, precisions = [], []
    for k in range(train.labels.shape[1]):
        signs = np.where(train.labels[:, k].numpy() == 1, 1, -1)
        best = 0.0
        for cost in COSTS:
            svm = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, dual=False, max_iter=2000)
            found = cross_val_score(svm, inputs, signs, cv=3, scoring="average_precision").mean()
            if found > best:
                best, chosen, classifier = found, cost, svm.fit(inputs, signs)
        used = test.labels[:, k].numpy() != 0
        scores = classifier.decision_function(queries)[used]
        costs.append(chosen)
        precisions.append(average_precision_score(test.labels[:, k].numpy()[used] == 1, scores))
    return tuple(costs), 100 * np.mean(precisions)


@pytest.mark.parametrize("engine", ENGINES)
def test_both_engines_give_the_published_figure(engine):
    costs, expected = published(TRAIN, TEST)
    steps = []
    precision, _ = voc07(TRAIN, TEST, engine, steps.append)
    assert precision.settings["cost"] == costs
    assert precision.value == pytest.approx(expected, abs=0.05)
    assert sum(steps) == len(COSTS) * 3


@pytest.mark.parametrize("engine", ENGINES)
def test_difficult_images_count_in_the_test_neither_way(engine):
    marked = voc07(TRAIN, TEST, engine)[0]
    as_negative = torch.where(TEST.labels == 0, -1, TEST.labels)
    counted = voc07(TRAIN, Split(TEST.features, as_negative, NAMES), engine)[0]
    assert abs(marked.value - counted.value) > 0.5
    assert marked.settings["cost"] == counted.settings["cost"]


def test_difficult_images_are_negatives_in_training():
    as_negative = torch.where(TRAIN.labels == 0, -1, TRAIN.labels)
    train = Split(TRAIN.features, as_negative, NAMES)
    assert voc07(TRAIN, TEST, "torch") == voc07(train, TEST, "torch")


def test_the_engines_agree():
    values = [[figure.value for figure in voc07(TRAIN, TEST, engine)] for engine in ENGINES]
    assert values[0] == pytest.approx(values[1], abs=0.005)


@pytest.mark.parametrize("seed", range(4))
def test_folds_equal_scikit_learns(seed):
    signs = np.where(np.random.default_rng(seed).random(50) < 0.3, 1, -1).astype(np.int8)
    expected = np.empty(50, np.int64)
    for fold, (_, held_out) in enumerate(StratifiedKFold(3).split(signs, signs)):
        expected[held_out] = fold
    assert np.array_equal(stratified_folds(signs), expected)


def test_single_labels_are_one_against_the_rest():
    train, test = gaussians.split(60), gaussians.split(30, seed=1)
    several = [Split(s.features, s.one_against_rest().labels) for s in (train, test)]
    assert voc07(train, test, "torch") == voc07(*several, "torch")


def test_classes_too_small_for_the_folds_are_left_out_by_name():
    labels = TRAIN.labels.clone()
    labels[:, 1] = -1
    labels[:2, 1] = 1
    figure = voc07(Split(TRAIN.features, labels, NAMES), TEST, "torch")[0]
    assert (figure.settings["left_out"], figure.settings["classes"]) == (("bee",), 2)
    with pytest.raises(UserError, match="no class has 3 positive and 3 negative training images"):
        voc07(Split(TRAIN.features, labels[:, 1:2]), Split(TEST.features, TEST.labels[:, :1]))


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(UserError, match=r"pip install 'virtex-pretraining\[evaluation\]'"):
        voc07(TRAIN, TEST)

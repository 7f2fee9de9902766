import math

import numpy as np
import pytest
import torch
from tests.evaluation import gaussians

from virtex.errors import UserError
from virtex.evaluation.figures import average_precision
from virtex.evaluation.protocols import knn as module
from virtex.evaluation.protocols.knn import knn
from virtex.evaluation.protocols.split import Split


def slow_votes(train, query, k, temperature):
    """Total votes of each label for one query, in plain Python."""
    rows = train.features.double().tolist()

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    nearest = sorted(((cosine(row, query), n) for n, row in enumerate(rows)), reverse=True)[:k]
    return [(math.exp(similarity / temperature), number) for similarity, number in nearest]


def angles(degrees, labels):
    radians = torch.tensor(degrees).deg2rad()
    return Split(torch.stack([radians.cos(), radians.sin()], dim=1), torch.tensor(labels))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_single_labels_equal_a_slow_reference(temperature):
    train, test = gaussians.split(40), gaussians.split(20, seed=1)
    right = []
    for query, label in zip(test.features.double().tolist(), test.labels.tolist(), strict=True):
        votes = [0.0] * 3
        for weight, number in slow_votes(train, query, 7, temperature):
            votes[int(train.labels[number])] += weight
        right.append(votes.index(max(votes)) == label)
    figure = knn(train, test, ks=(7,), temperature=temperature)[0]
    assert (figure.metric, figure.value) == ("top1_k7", pytest.approx(100 * np.mean(right)))


def test_several_labels_equal_a_slow_reference():
    train = gaussians.several_labels(40, ignored=0.3)
    test = gaussians.several_labels(30, seed=5)
    scores = np.zeros((30, 3))
    for row, query in enumerate(test.features.double().tolist()):
        votes = slow_votes(train, query, 7, 0.07)
        for k in range(3):
            labels = [(weight, int(train.labels[number, k])) for weight, number in votes]
            counted = sum(weight for weight, label in labels if label != 0)
            positive = sum(weight for weight, label in labels if label == 1)
            scores[row, k] = positive / counted if counted else 0
    expected = [average_precision(scores[:, k], test.labels[:, k].numpy() == 1) for k in range(3)]
    figure = knn(train, test, ks=(7,))[0]
    assert figure.metric == "mAP_k7"
    assert figure.value == pytest.approx(100 * np.mean(expected), abs=1e-9)


def test_a_near_image_outvotes_two_far_ones():
    """By hand: at T = 0.07 exp(1 / T) exceeds twice exp(cos 30° / T); at T = 10 it does not."""
    train = angles([0.0, 30.0, -30.0, 180.0], [0, 1, 1, 1])
    test = angles([0.0, 170.0], [0, 1])
    assert knn(train, test, ks=(3,), temperature=0.07)[0].value == 100
    assert knn(train, test, ks=(3,), temperature=10.0)[0].value == 50


def test_lengths_of_features_do_not_matter():
    train, test = gaussians.split(40), gaussians.split(20, seed=1)
    longer = Split(train.features * 2.0 ** (torch.arange(40)[:, None] % 5), train.labels)
    assert knn(longer, test, ks=(5,)) == knn(train, test, ks=(5,))


def test_batches_and_blocks_do_not_matter(monkeypatch):
    train, test = gaussians.split(40), gaussians.split(20, seed=1)
    whole = knn(train, test, ks=(1, 10))
    monkeypatch.setattr(module, "_TEST_BATCH", 3)
    monkeypatch.setattr(module, "_TRAIN_BLOCK", 7)
    steps = []
    assert knn(train, test, ks=(1, 10), advance=steps.append) == whole
    assert sum(steps) == 20


def test_a_k_beyond_the_training_images_is_left_out_and_named():
    train, test = gaussians.split(15), gaussians.split(12, seed=1)
    figures = knn(train, test)
    assert {figure.settings["k"] for figure in figures} == {10}
    assert figures[0].settings["k_left_out"] == (20, 100, 200)
    with pytest.raises(UserError, match="each k of 20, 100 exceeds the 15 training images"):
        knn(train, test, ks=(20, 100))


def test_a_low_temperature_does_not_overflow():
    train, test = gaussians.split(40), gaussians.split(20, seed=1)
    nearest = knn(train, test, ks=(1,))[0]
    assert knn(train, test, ks=(10,), temperature=1e-4)[0].value == nearest.value

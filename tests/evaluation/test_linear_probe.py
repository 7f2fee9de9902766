import pytest
import torch

from virtex.evaluation.linear_probe import linear_probe_accuracy


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(rows, classes=3, distance=20.0, seed=0):
    labels = torch.arange(rows) % classes
    return distance * torch.eye(classes, 5)[labels] + normal(rows, 5, seed=seed), labels


def test_separable_classes_are_all_right():
    assert linear_probe_accuracy(*blobs(60), *blobs(30, seed=1)) == 1.0


def test_labels_without_a_pattern_are_guessed():
    features, labels = normal(2000, 5), torch.arange(2000) % 4
    accuracy = linear_probe_accuracy(features[:1000], labels[:1000], features[1000:], labels[1000:])
    # Five standard deviations of 1,000 guesses among four.
    assert accuracy == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 1000) ** 0.5)


def test_accuracy_is_the_share_that_is_right():
    """Test labels that are wrong on purpose, for a classifier that is right."""
    held_out, labels = blobs(40, classes=2, seed=1)
    labels[:10] = 1 - labels[:10]
    assert linear_probe_accuracy(*blobs(60, classes=2), held_out, labels) == 0.75


def test_two_normal_classes_reach_the_best_rule_that_there_is():
    """Means 2 deviations apart: the best rule cuts half way and is right Phi(1) of the time."""
    labels = torch.arange(8000) % 2
    features = normal(8000, 3)
    features[:, 0] += 2 * labels
    got = linear_probe_accuracy(features[:4000], labels[:4000], features[4000:], labels[4000:])
    best = 0.5 * (1 + torch.erf(torch.tensor(0.5**0.5)).item())
    # Three standard deviations of 4,000 coins; the fit itself loses far less.
    assert got == pytest.approx(best, abs=3 * (best * (1 - best) / 4000) ** 0.5)


def test_units_and_offsets_of_features_do_not_matter():
    (train, labels), (test, test_labels) = blobs(60, distance=2.0), blobs(60, distance=2.0, seed=1)
    scale, offset = torch.tensor([1e3, 1e-3, 1.0, 5.0, 2.0]), 100 * normal(5, seed=2)
    plain = linear_probe_accuracy(train, labels, test, test_labels)
    moved = linear_probe_accuracy(
        train.double() * scale + offset, labels, test.double() * scale + offset, test_labels
    )
    assert moved == plain
    assert 0.5 < plain < 1


def test_a_feature_that_never_varies_is_harmless():
    (train, labels), (test, test_labels) = blobs(60), blobs(30, seed=1)
    train[:, 4] = test[:, 4] = 3.0
    assert linear_probe_accuracy(train, labels, test, test_labels) == 1.0


def test_the_same_data_give_the_same_figure():
    train, test = blobs(60, distance=1.0), blobs(60, distance=1.0, seed=1)
    figures = set()
    for seed in range(3):
        torch.manual_seed(seed)
        figures.add(linear_probe_accuracy(*train, *test))
    assert len(figures) == 1

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tests.evaluation import gaussians

from virtex.evaluation.figures import average_precision
from virtex.evaluation.protocols.classifiers import (
    fit_binary,
    fit_multinomial,
    standardise,
)
from virtex.evaluation.protocols.linear import PENALTIES
from virtex.evaluation.protocols.linear import linear as linear_with_sweep
from virtex.evaluation.protocols.split import Split

# The strong penalties, which are quickly fitted.
linear = partial(linear_with_sweep, penalties=PENALTIES[:4])
TRAIN, TEST = gaussians.split(150), gaussians.split(150, seed=1)
SEVERAL = gaussians.several_labels(200, ignored=0.2), gaussians.several_labels(150, seed=9)


def scikit_learn(inputs, labels, penalty):
    """Weights and intercepts on the same inputs."""
    model = LogisticRegression(C=1 / (penalty * len(inputs)), tol=1e-8, max_iter=1000)
    model.fit(inputs[:, :-1].numpy(), labels.numpy())
    return torch.from_numpy(np.c_[model.coef_, model.intercept_])


def scikit_learn_scores(train, labels, test, penalty):
    """Test scores of scikit-learn's own standardised features; all of `train` standardises."""
    scaler = StandardScaler().fit(train.features.double().numpy())
    used = labels.numpy() != 0 if train.multilabel else slice(None)
    inputs = scaler.transform(train.features.double().numpy())[used]
    model = LogisticRegression(C=1 / (penalty * len(inputs)), tol=1e-8, max_iter=1000)
    model.fit(inputs, labels.numpy()[used])
    return model.decision_function(scaler.transform(test.features.double().numpy()))


def multinomial_objective(weights, inputs, labels, penalty):
    penalised = penalty / 2 * weights[:, :-1].square().sum()
    return float(F.cross_entropy(inputs @ weights.T, labels) + penalised)


@pytest.mark.parametrize("penalty", [0.1, 1e-3])
def test_the_multinomial_fit_equals_scikit_learns(penalty):
    inputs, test_inputs = standardise(TRAIN.features, TEST.features)
    expected = scikit_learn(inputs.values, TRAIN.labels, penalty)
    found = fit_multinomial(inputs, TRAIN.labels, penalty, torch.zeros_like(expected), 1e-7)
    values = [
        multinomial_objective(w, inputs.values, TRAIN.labels, penalty) for w in (found, expected)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-9)
    agree = (test_inputs @ found.T).argmax(1) == (test_inputs @ expected.T).argmax(1)
    assert agree.all()


def test_binary_fits_equal_scikit_learns_without_the_ignored_images():
    train, _ = SEVERAL
    inputs, _ = standardise(train.features, train.features)
    penalties = torch.tensor([0.1, 0.01, 1e-3], dtype=torch.float64)
    start = torch.zeros(3, inputs.values.shape[1], dtype=torch.float64)
    found = fit_binary(inputs, train.labels.T, penalties, start, 1e-8)
    for k, penalty in enumerate(penalties.tolist()):
        used = train.labels[:, k] != 0
        expected = scikit_learn(inputs.values[used], train.labels[used, k], penalty)
        torch.testing.assert_close(found[k], expected[0], rtol=0, atol=1e-4)


def test_the_figure_is_that_of_the_best_held_out_penalty():
    top1, balanced = linear(TRAIN, TEST)
    scores = scikit_learn_scores(TRAIN, TRAIN.labels, TEST, top1.settings["penalty"])
    expected = np.mean(scores.argmax(1) == TEST.labels.numpy())
    assert top1.value == pytest.approx(100 * expected)
    assert (top1.metric, balanced.metric) == ("top1", "balanced_accuracy")
    assert top1.interval[0] < top1.value < top1.interval[1]


def test_noise_takes_a_strong_penalty_and_signal_a_weak_one():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 2
    noise = torch.randn(240, 40, generator=generator)
    noise[:, 0] += labels
    # The classes lie between each other along one axis, without noise: only weak penalties see it.
    signal = torch.stack([labels + 20 * torch.randn(240, generator=generator)] * 2, dim=1)
    signal[:, 1] -= labels
    chosen = [
        linear_with_sweep(Split(x, labels), Split(x, labels))[0].settings["penalty"]
        for x in (noise, signal)
    ]
    assert chosen[0] > chosen[1]


def test_several_labels_choose_a_penalty_a_class():
    train, test = SEVERAL
    precision, area = linear(train, test)
    assert (precision.metric, area.metric) == ("mAP", "AUROC")
    expected = []
    for k, penalty in enumerate(precision.settings["penalty"]):
        scores = scikit_learn_scores(train, train.labels[:, k], test, penalty)
        expected.append(average_precision(scores, test.labels[:, k].numpy() == 1))
    assert precision.value == pytest.approx(100 * np.mean(expected), abs=1e-3)


def test_an_ignored_training_image_does_not_count_for_its_class():
    train, _ = SEVERAL
    inputs, _ = standardise(train.features, train.features)
    used = train.labels[:, 0] != 0
    start, penalty = torch.zeros(1, 7).double(), torch.tensor([0.01]).double()
    signs = train.labels.T[:1]
    ignoring = fit_binary(inputs, signs, penalty, start, 1e-9)
    without = fit_binary(inputs.rows(used), signs[:, used], penalty, start, 1e-9)
    torch.testing.assert_close(ignoring, without, rtol=0, atol=1e-7)


def test_a_class_with_one_positive_takes_the_strongest_penalty():
    train, test = SEVERAL
    labels = train.labels.clone()
    labels[:, 0] = -1
    labels[3, 0] = 1
    precision, _ = linear(Split(train.features, labels), test)
    assert precision.settings["penalty"][0] == PENALTIES[0]


def test_units_and_offsets_of_features_do_not_matter():
    scale, offset = 10.0 ** torch.arange(-3, 3), 100 * gaussians.normal(6, seed=2)
    moved = [Split(s.features.double() * scale + offset, s.labels) for s in (TRAIN, TEST)]
    assert linear(*moved) == linear(TRAIN, TEST)


def test_a_constant_feature_is_harmless():
    constant = torch.full((150, 1), 0.1)
    changed = torch.full((150, 1), 0.1 + 1e-8)
    train = Split(torch.cat([TRAIN.features, constant], 1), TRAIN.labels)
    test = Split(torch.cat([TEST.features, changed], 1), TEST.labels)
    assert linear(train, test) == linear(TRAIN, TEST)


def test_threads_and_the_global_seed_do_not_matter():
    """Products of these sizes are divided among threads."""
    train, test = (
        gaussians.several_labels(600, width=64),
        gaussians.several_labels(150, width=64, seed=9),
    )
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            torch.manual_seed(number)
            figures = linear_with_sweep(train, test, penalties=(1.0,))
            found.append([figure.value for figure in figures])
    finally:
        torch.set_num_threads(threads)
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_progress_counts_the_penalties():
    for splits in ((TRAIN, TEST), SEVERAL):
        steps = []
        linear(*splits, advance=steps.append)
        assert sum(steps) == 4

import numpy as np
import pytest
import torch
from tests.evaluation import gaussians

from virtex.errors import UserError
from virtex.evaluation.protocols import low_shot as module
from virtex.evaluation.protocols.low_shot import low_shot
from virtex.evaluation.protocols.split import Split

TRAIN, TEST = gaussians.split(60), gaussians.split(60, seed=1)
SEVERAL = gaussians.several_labels(80, ignored=0.1), gaussians.several_labels(60, seed=5)


@pytest.fixture
def fitted(monkeypatch):
    """The inputs and labels of every draw."""
    recorded = []
    for name in ("fit_multinomial_with_sweep", "fit_binary_with_sweep"):
        original = getattr(module, name)

        def recording(inputs, labels, *rest, original=original, **keywords):
            recorded.append((inputs.values, labels))
            return original(inputs, labels, *rest, **keywords)

        monkeypatch.setattr(module, name, recording)
    return recorded


def rows(inputs):
    return {tuple(row) for row in inputs.tolist()}


def test_every_class_has_as_many_images_and_larger_counts_contain_smaller(fitted):
    low_shot(TRAIN, TEST, counts=(1, 4, 20), draws=2)
    assert [labels.bincount().tolist() for _, labels in fitted] == [
        [count] * 3 for count in (1, 1, 4, 4, 20, 20)
    ]
    drawn = [rows(inputs) for inputs, _ in fitted]
    assert drawn[0] < drawn[2] < drawn[4]
    assert drawn[1] < drawn[3] < drawn[5]
    assert drawn[2] != drawn[3]


def test_draws_do_not_depend_on_the_features(fitted):
    other = Split(-2 * TRAIN.features, TRAIN.labels)
    for split in (TRAIN, other):
        low_shot(split, TEST, counts=(3,), draws=1)
    (first, labels), (second, other_labels) = fitted
    # The axes may point either way.
    torch.testing.assert_close(first[:, :-1].abs(), second[:, :-1].abs())
    assert torch.equal(labels, other_labels)


def test_several_labels_have_as_many_positives_and_more_negatives(fitted):
    low_shot(*SEVERAL, counts=(1, 4), draws=2)
    for (_, signs), count in zip(fitted, (1, 1, 4, 4), strict=True):
        assert (signs == 1).sum(0).tolist() == [count] * 3
        assert (signs == -1).sum(0).tolist() == [2 * count] * 3


def test_mean_and_deviation_are_those_of_the_draws():
    figures = {figure.metric: figure for figure in low_shot(TRAIN, TEST, counts=(2,), draws=3)}
    # The numbers of draws contain each other too.
    means = [low_shot(TRAIN, TEST, counts=(2,), draws=n)[0].value for n in (1, 2, 3)]
    values = [means[0], 2 * means[1] - means[0], 3 * means[2] - 2 * means[1]]
    assert figures["top1_n2"].value == pytest.approx(np.mean(values))
    assert figures["top1_n2"].deviation == pytest.approx(np.std(values, ddof=1))
    assert low_shot(TRAIN, TEST, counts=(2,), draws=1)[0].deviation is None


def test_more_images_help():
    values = [figure.value for figure in low_shot(TRAIN, TEST, counts=(1, 16))][::2]
    assert values[0] < values[1]


def test_a_count_beyond_the_smallest_class_is_left_out_and_named():
    figures = low_shot(TRAIN, TEST, draws=1)
    assert [figure.settings["count"] for figure in figures[::2]] == [1, 2, 4, 8, 16]
    assert figures[0].settings["counts_left_out"] == (32, 64, 96)
    with pytest.raises(UserError, match="smallest class has 20 training images, fewer than each"):
        low_shot(TRAIN, TEST, counts=(32, 64))


def test_classes_are_told_apart_where_one_direction_outweighs_the_rest():
    """There a penalty that suits other features would leave nothing but that direction."""
    train, test = (
        Split(split.features + 200 * gaussians.normal(len(split.labels), 1, seed=2), split.labels)
        for split in (gaussians.split(300, width=40), gaussians.split(300, width=40, seed=1))
    )
    assert low_shot(train, test, counts=(96,), draws=1)[0].value > 95


@pytest.mark.parametrize("splits", [(TRAIN, TEST), SEVERAL], ids=["one label", "several labels"])
def test_the_seed_decides(splits):
    steps = []
    first = low_shot(*splits, counts=(1, 2), draws=2, advance=steps.append)
    assert sum(steps) == 4
    assert low_shot(*splits, counts=(1, 2), draws=2) == first
    assert low_shot(*splits, counts=(1, 2), draws=2, seed=1)[0].value != first[0].value

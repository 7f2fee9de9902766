import numpy as np
import pytest
import torch
from tests.evaluation import gaussians

from virtex.errors import UserError
from virtex.evaluation.protocols.knn import knn
from virtex.evaluation.protocols.linear import linear
from virtex.evaluation.protocols.low_shot import low_shot
from virtex.evaluation.protocols.split import Split, prepare, shuffled_members, stratified_subset
from virtex.evaluation.protocols.voc07 import voc07


def with_label(split, label):
    labels = split.labels.clone()
    labels[0] = label
    return Split(split.features, labels, split.classes)


def with_value(split, value):
    features = split.features.clone()
    features[4, 2] = value
    return Split(features, split.labels)


def first(split, count):
    return Split(split.features[:count], split.labels[:count])


NAMES = ("ant", "bee", "cat", "dog")
TRAIN, TEST = gaussians.split(30, names=NAMES), gaussians.split(12, seed=1, names=NAMES)
SEVERAL = gaussians.several_labels(30), gaussians.several_labels(30, seed=5)
REFUSED = [
    (with_label(TRAIN, 3), TEST, "class dog has training images but no test image"),
    (TRAIN, with_label(TEST, 3), "class dog has test images but no training image"),
    (first(TRAIN, 1), first(TEST, 1), "all images have the class 0; at least two"),
    (Split(TRAIN.features[:, :4], TRAIN.labels), TEST, "have 4 values .* test features have 6"),
    (with_value(TRAIN, float("nan")), TEST, "features of 1 of 30 training images have NaN"),
    (TRAIN, with_value(TEST, float("inf")), "features of 1 of 12 test images have NaN"),
    (first(TRAIN, 0), TEST, "the training split has no image"),
    (TRAIN, first(TEST, 0), "the test split has no image"),
    (SEVERAL[0], first(SEVERAL[1], 1), "no class has positive and negative images in both splits"),
]


@pytest.mark.parametrize(("train", "test", "message"), REFUSED)
@pytest.mark.parametrize("protocol", [knn, linear, low_shot, voc07])
def test_splits_that_cannot_be_judged_are_refused(protocol, train, test, message):
    with pytest.raises(UserError, match=message):
        protocol(train, test)


def test_several_missing_classes_are_named_in_one_sentence():
    labels = torch.tensor([7, 3, *range(3)])
    with pytest.raises(UserError, match="2 classes have test images but no training image: 3, 7"):
        prepare(gaussians.split(30), Split(gaussians.normal(5, 6, seed=1), labels))


def test_labels_need_not_be_consecutive():
    far = [Split(split.features, 10 * split.labels - 5) for split in (TRAIN, TEST)]
    near = [Split(split.features, split.labels) for split in (TRAIN, TEST)]
    assert knn(*far) == knn(*near)
    train, _, _ = prepare(*far)
    assert train.classes == ("-5", "5", "15")


def test_classes_of_one_kind_are_left_out_by_name():
    train, test = SEVERAL
    labels = test.labels.clone()
    labels[:, 1] = -1
    test = Split(test.features, labels)
    train = Split(train.features, train.labels, ("ant", "bee", "cat"))
    kept, _, settings = prepare(train, test)
    assert (kept.classes, settings["left_out"]) == (("ant", "cat"), ("bee",))
    assert torch.equal(kept.labels, train.labels[:, [0, 2]])


def test_one_against_rest_by_hand():
    split = Split(torch.zeros(3, 1), torch.tensor([1, 0, 1]))
    assert split.one_against_rest().labels.tolist() == [[-1, 1], [1, -1], [-1, 1]]


def test_a_held_out_fifth_has_a_fifth_of_each_class():
    labels = np.repeat([0, 1, 2, 3], [50, 10, 2, 1])
    drawn = stratified_subset(labels, 0.2, seed=0)
    assert np.bincount(labels[drawn], minlength=4).tolist() == [10, 2, 1, 0]
    assert not np.array_equal(drawn, stratified_subset(labels, 0.2, seed=1))


def test_the_order_of_a_class_depends_on_its_own_images_alone():
    labels = np.array([0, 1, 0, 0, 1, 0])
    other = np.where(labels == 1, 2, labels)
    assert np.array_equal(shuffled_members(labels, 0, 3), shuffled_members(other, 0, 3))

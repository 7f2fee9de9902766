"""Classification of labelled images: the losses of one and of several labels, and samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests import small

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.heads import LabelHead
from virtex.tasks.base import select_images
from virtex.tasks.image_classification import ImageClassification, LabelEncoder, predict_classes
from virtex.text.vocabulary import Classes

CLASSES = Classes(("ant", "bee", "cow", "dog"))
SEVERAL = [[1, -1, 0, 1], [0, 0, -1, -1], [-1, 1, 1, 0]]


def model():
    head = LabelHead(small.CHANNELS, len(CLASSES.names))
    small.spread(head, seed=5)
    return ImageClassification(small.backbone(), head).double().eval()


def batch_of(labels, dtype):
    images = small.batch(len(labels))["image"]
    return {"image": images, "labels": torch.tensor(labels, dtype=dtype)}


def loss_of(batch):
    with torch.no_grad():
        return model()(batch)["classification"]


def logits_of(batch):
    with torch.no_grad():
        return model().textual(model().visual(batch["image"])).double().numpy()


def test_the_loss_of_one_label_is_the_mean_over_images():
    batch = batch_of([2, 0, 3], torch.int64)
    logits = logits_of(batch)
    plain = [
        np.log(np.exp(row).sum()) - row[label] for row, label in zip(logits, [2, 0, 3], strict=True)
    ]
    loss = loss_of(batch)
    assert int(loss.items) == 3
    assert float(loss.total) == pytest.approx(sum(plain), rel=1e-12)


def test_the_loss_of_several_labels_ignores_those_that_are_unknown():
    batch = batch_of(SEVERAL, torch.int8)
    logits = logits_of(batch)
    plain = [
        np.log1p(np.exp(-sign * logit))
        for row, signs in zip(logits, SEVERAL, strict=True)
        for logit, sign in zip(row, signs, strict=True)
        if sign
    ]
    loss = loss_of(batch)
    assert int(loss.items) == len(plain) == 8
    assert float(loss.total) == pytest.approx(sum(plain), rel=1e-12)


def test_an_unknown_label_has_no_gradient():
    objective = model()
    objective(batch_of([[1, -1, 0, 0]], torch.int8))["classification"].mean.backward()
    gradient = objective.textual.output.weight.grad
    assert [bool(row.any()) for row in gradient] == [True, True, False, False]


def test_images_without_a_known_label_are_a_loss_of_zero():
    loss = model()(batch_of([[0, 0, 0, 0]], torch.int8))["classification"]
    assert (loss.mean.item(), int(loss.items)) == (0.0, 0)


def test_parts_of_a_batch_hold_the_labels_of_their_images():
    batch = batch_of(SEVERAL, torch.int8)
    parts = [loss_of(select_images(batch, row, row + 1)) for row in range(3)]
    whole = loss_of(batch)
    assert sum(float(part.total) for part in parts) == pytest.approx(float(whole.total), rel=1e-12)
    assert sum(int(part.items) for part in parts) == int(whole.items)


@pytest.mark.parametrize(
    ("several", "labels", "collated"),
    [(False, [(3,), (0,)], [3, 0]), (True, [(1, 0, -1, 1)] * 2, [[1, 0, -1, 1]] * 2)],
)
def test_mirroring_changes_no_label(several, labels, collated):
    encoder = LabelEncoder(several)
    image = np.zeros((4, 4, 3), np.uint8)
    examples = [
        encoder.encode(
            Record(row, Path("unread.jpg"), labels=given),
            Augmented(image, mirrored=bool(row)),
            np.random.default_rng(0),
        )
        for row, given in enumerate(labels)
    ]
    batch = encoder.collate(examples)
    assert batch["labels"].tolist() == collated
    assert batch["labels"].dtype is (torch.int8 if several else torch.int64)
    assert batch["image"].shape == (2, 3, 4, 4)


def test_samples_name_the_classes():
    one = batch_of([2, 0, 3], torch.int64)
    logits = logits_of(one)
    samples = predict_classes(model(), CLASSES, one)
    assert [sample.target for sample in samples] == ["cow", "ant", "dog"]
    assert [sample.prediction for sample in samples] == [
        CLASSES.names[index] for index in logits.argmax(1)
    ]
    several = Classes(CLASSES.names, several=True)
    samples = predict_classes(model(), several, batch_of(SEVERAL, torch.int8))
    assert [sample.target for sample in samples] == ["ant, dog", "none", "bee, cow"]
    assert [set(sample.prediction.split(", ")) for sample in samples] == [
        {CLASSES.names[index] for index in np.flatnonzero(row > 0)} or {"none"} for row in logits
    ]

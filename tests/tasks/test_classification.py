"""Token and multilabel classification: labels of an image, and the loss over their set."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.models.heads import LabelHead
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.classification import (
    CategoryEncoder,
    LabelSetClassification,
    TokenLabelEncoder,
    predict_labels,
)
from virtex.tasks.label_targets import LabelTargets
from virtex.text.tokenizer import Tokenizer, train
from virtex.text.vocabulary import Categories

TOKENIZER = Tokenizer.from_bytes(train(["a cat and a dog left of it"] * 3, 45))
LABELS = 9


def model_of(ignored=(0, 1, 2, 3)):
    head = LabelHead(small.CHANNELS, LABELS)
    small.spread(head, seed=5)
    return LabelSetClassification(small.backbone(), head, LabelTargets(ignored)).double().eval()


def batch_of(labels, seed=0):
    width = max(map(len, labels), default=0)
    rows = [list(row) + [0] * (width - len(row)) for row in labels]
    given = torch.tensor(rows, dtype=torch.int64).view(len(labels), width)
    return {"image": small.batch(len(labels), seed)["image"], "labels": given}


def plain_loss(model, batch, ignored):
    """One image after another: minus the mean logarithm of its labels' probabilities."""
    logits = model.textual(model.visual(batch["image"])).float()
    costs = []
    for row, labels in zip(logits.log_softmax(-1).tolist(), batch["labels"].tolist(), strict=True):
        distinct = set(labels) - set(ignored)
        if distinct:
            costs.append(-sum(row[label] for label in distinct) / len(distinct))
    return sum(costs), len(costs)


@settings(deadline=None, max_examples=25)
@given(
    labels=st.lists(st.lists(st.integers(0, LABELS - 1), max_size=6), min_size=1, max_size=5),
    ignored=st.sampled_from([(0,), (0, 1, 2, 3)]),
    seed=st.integers(0, 2**32),
)
@torch.no_grad()
def test_the_loss_is_that_of_one_image_after_another(labels, ignored, seed):
    model, batch = model_of(ignored), batch_of(labels, seed)
    total, count = plain_loss(model, batch, ignored)
    loss = model(batch)["classification"]
    # The logarithms are computed in float32.
    assert float(loss.total) == pytest.approx(total, rel=1e-6)
    assert int(loss.items) == count
    assert math.isfinite(float(loss.mean))


def test_an_image_without_labels_adds_nothing_to_the_mean():
    model = model_of()
    with_empty, without = batch_of([[5, 6], [], [8]]), batch_of([[5, 6], [1], [8]])
    without = {name: value[[0, 2]] for name, value in with_empty.items()}
    means = [float(model(batch)["classification"].mean.detach()) for batch in (with_empty, without)]
    assert means[0] == pytest.approx(means[1], rel=1e-6)


@pytest.mark.parametrize("labels", [[[], []], [[1, 2], [0]]])
def test_no_labels_at_all_is_a_loss_of_zero_with_zero_gradients(labels):
    model = model_of()
    loss = model(batch_of(labels))["classification"]
    assert (loss.mean.item(), int(loss.items)) == (0.0, 0)
    loss.mean.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def encode(encoder, **record):
    image = Augmented(np.zeros((4, 4, 3), np.uint8), mirrored=record.pop("mirrored", False))
    record = Record(7, Path("unread.jpg"), **record)
    return encoder.encode(record, image, np.random.default_rng(0))


def test_a_captions_tokens_are_its_labels():
    encoder = TokenLabelEncoder(CaptionTokens(TOKENIZER, 30))
    example = encode(encoder, captions=("A cat LEFT",), mirrored=True)
    assert example["labels"].tolist() == [1, *TOKENIZER.encode("a cat right"), 2]
    batch = encoder.collate([example, encode(encoder, captions=("a",))])
    assert batch["labels"][1].tolist()[:4] == [1, *TOKENIZER.encode("a"), 2, 0]
    assert batch["image"].shape == (2, 3, 4, 4)


def test_categories_are_labels_and_may_be_none():
    encoder = CategoryEncoder()
    examples = [encode(encoder, categories=(2, 7)), encode(encoder)]
    assert encoder.collate(examples)["labels"].tolist() == [[2, 7], [0, 0]]
    assert encoder.collate(examples[1:])["labels"].shape == (1, 0)


def test_samples_name_the_likeliest_labels_and_the_target_labels():
    model = model_of(ignored=(0,)).train()
    names = Categories(("one", "two", "three", "four", "five", "six", "seven", "eight"))
    batch = batch_of([[2, 8], []])
    samples = predict_labels(model, names.name, batch)
    assert [sample.target for sample in samples] == ["two, eight", "none"]
    model.eval()
    with torch.no_grad():
        logits = model.textual(model.visual(batch["image"]))[:, 1:]
    best = [names.name(1 + index) for index in logits[0].topk(5).indices.tolist()]
    assert samples[0].prediction == ", ".join(best)

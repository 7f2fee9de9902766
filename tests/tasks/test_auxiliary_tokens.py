"""The tokens of all captions as a second target, against its formula in plain Python."""

import math
import pickle
from dataclasses import replace
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
from virtex.tasks.auxiliary_tokens import AllTokensEncoder, TokensHead
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.classification import LabelSetClassification
from virtex.tasks.label_targets import LabelCounts, LabelTargets
from virtex.text.tokenizer import Tokenizer, train

TOKENIZER = Tokenizer.from_bytes(train(["a cat left of a dog", "a bird right of it"] * 3, 45))
SPECIAL = (0, 1, 2, 3)
LABELS, IMAGES = 9, 20


def head_of(images_with):
    classifier = LabelHead(small.CHANNELS, LABELS)
    small.spread(classifier, seed=5)
    counts = LabelCounts(LABELS)
    counts.put(IMAGES, torch.tensor(images_with))
    return TokensHead(classifier, LabelTargets(SPECIAL, counts)).double()


def grid_and_batch(labels, seed=0):
    width = max(map(len, labels))
    rows = [list(row) + [0] * (width - len(row)) for row in labels]
    given = torch.tensor(rows, dtype=torch.int64).view(len(labels), width)
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(len(labels), small.CHANNELS, 2, 2, generator=generator, dtype=torch.float64)
    return grid, {"all_tokens": given}


def plain_losses(logits, labels, images_with):
    """The cross-entropy of each image with a target, one after another."""
    losses = []
    for row, tokens in zip(logits, labels, strict=True):
        raw = {
            token: math.log(IMAGES / max(images_with[token], 1))
            for token in set(tokens) - set(SPECIAL)
        }
        if sum(raw.values()) > 0:
            normaliser = math.log(sum(math.exp(value) for value in row))
            shares = {token: value / sum(raw.values()) for token, value in raw.items()}
            losses.append(sum(shares[token] * (normaliser - row[token]) for token in raw))
    return losses


@settings(deadline=None, max_examples=40)
@given(
    labels=st.lists(st.lists(st.integers(0, LABELS - 1), max_size=6), min_size=1, max_size=5),
    images_with=st.lists(st.integers(0, IMAGES), min_size=LABELS, max_size=LABELS),
    seed=st.integers(0, 2**32),
)
@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_shares_by_rarity(labels, images_with, seed):
    """log(N / n_t) over their sum; tokens that all images have, and images without others, add
    nothing."""
    head = head_of(images_with)
    grid, batch = grid_and_batch(labels, seed)
    expected = plain_losses(head.classifier(grid).tolist(), labels, images_with)
    assert int(head.num_targets(batch)) == len(expected)
    assert float(head(grid, batch)) == pytest.approx(sum(expected), rel=1e-12, abs=1e-12)


def test_the_gradient_reaches_the_grid_and_is_zero_without_targets():
    head = head_of([IMAGES] * 4 + [5] * 5)
    for labels, reaches in (([[4, 5], [8]], True), ([[0, 1], []], False)):
        grid, batch = grid_and_batch(labels)
        grid.requires_grad_()
        head(grid, batch).backward()
        assert grid.grad.isfinite().all()
        assert bool(grid.grad.any()) is reaches


def test_classification_takes_the_same_weights():
    counts = LabelCounts(LABELS)
    counts.put(IMAGES, torch.arange(LABELS))
    head = head_of(list(range(LABELS)))
    model = LabelSetClassification(small.backbone(), head.classifier, LabelTargets(SPECIAL, counts))
    grid, batch = grid_and_batch([[4, 5, 6], [8, 1], [7, 7]])
    loss = model.main_totals(grid, {"labels": batch["all_tokens"]})["classification"]
    assert torch.equal(loss, head(grid, batch))
    names = [name for name in model.state_dict() if name.startswith("targets.")]
    assert names == ["targets.label_counts.images", "targets.label_counts.images_with"]


CAPTIONS = ("A cat left of a dog", "a bird")


def encode(record, *, mirrored=False, **options):
    encoder = AllTokensEncoder(CaptionTokens(TOKENIZER, max_length=4, **options))
    encoder = pickle.loads(pickle.dumps(encoder))
    image = Augmented(np.zeros((4, 4, 3), np.uint8), mirrored=mirrored)
    rng = np.random.default_rng(0)
    example = encoder.encode(record, image, rng)
    assert rng.random() == np.random.default_rng(0).random()  # nothing is drawn
    return encoder.collate([example, {"all_tokens": torch.tensor([5])}])["all_tokens"][0].tolist()


def words(*texts):
    return sorted({token for text in texts for token in TOKENIZER.encode(text)})


def test_the_labels_are_the_tokens_of_all_captions_uncut_and_mirrored_with_the_image():
    record = Record(7, Path("unread.jpg"), CAPTIONS)
    assert encode(record) == words("a cat left of a dog", "a bird")
    assert encode(record, mirrored=True) == words("a cat right of a dog", "a bird")
    assert encode(record, single_caption=True) == words("a cat left of a dog")
    unknown = replace(record, captions=("Ω",))
    assert TOKENIZER.unk_index in TOKENIZER.encode("Ω")
    assert set(encode(unknown)) - {TOKENIZER.unk_index} == set(words("Ω")) - {0}

"""Masked language modelling: which tokens are hidden how, and what the losses count."""

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
from virtex.tasks.base import Masking
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.masked_lm import (
    MaskedCaptionEncoder,
    MaskedLanguageModel,
    predict_masked,
)
from virtex.text.tokenizer import Tokenizer, train

WORDS = ["a", "cat", "dog", "left", "right", "bright", "of"]
TOKENIZER = Tokenizer.from_bytes(train([" ".join(WORDS)] * 3, 45))
CAPTIONS = CaptionTokens(TOKENIZER, max_length=30)
SPECIAL = {0, 1, 2, 3}


def encoded(caption, seed=0, proportion=0.15, mask=0.85, replace=0.1):
    record = Record(7, Path("unread.jpg"), (caption,))
    image = Augmented(np.zeros((4, 4, 3), np.uint8))
    encoder = MaskedCaptionEncoder(CAPTIONS, Masking(proportion, mask, replace))
    example = encoder.encode(record, image, np.random.default_rng(seed))
    (tokens,), (labels,) = example["caption_tokens"], example["masked_labels"]
    return tokens.tolist(), labels.tolist()


@given(
    words=st.lists(st.sampled_from([*WORDS, "ж"]), max_size=40),
    proportion=st.floats(0.01, 1),
    seed=st.integers(0, 2**32),
)
def test_the_share_of_ordinary_tokens_is_chosen_and_nothing_else_changes(words, proportion, seed):
    tokens, labels = encoded(" ".join(words), seed, proportion)
    plain = [1, *TOKENIZER.encode(" ".join(words)), 2][:30]
    ordinary = sum(token not in SPECIAL for token in plain)
    assert sum(label != 0 for label in labels) == math.ceil(ordinary * proportion)
    for token, label, original in zip(tokens, labels, plain, strict=True):
        assert label in (0, original)
        assert label not in SPECIAL - {0}
        assert token == original or label == original
        assert token == original or token == 3 or token not in SPECIAL


@pytest.mark.parametrize("mask", [0.0, 0.85, 1.0])
def test_fates_have_their_probabilities(mask):
    replace = 0.1 if mask < 1 else 0.0
    fates = {"masked": 0, "kept": 0, "replaced": 0}
    caption = " ".join(["cat dog of right"] * 4)
    for seed in range(300):
        for token, label in zip(*encoded(caption, seed, 1.0, mask, replace), strict=True):
            if label:
                fates["masked" if token == 3 else "kept" if token == label else "replaced"] += 1
    total = sum(fates.values())
    # A replacement may be the same token by chance: one in 41.
    expected = {"masked": mask, "replaced": replace * 40 / 41, "kept": 1 - mask - replace * 40 / 41}
    for fate, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / total)
        assert fates[fate] / total == pytest.approx(probability, abs=5 * deviation)


def test_a_caption_without_text_has_nothing_to_predict():
    assert encoded("") == ([1, 2], [0, 0])


def model_of():
    return MaskedLanguageModel(small.backbone(), small.decoder(layers=2)).double().eval()


def batch_of(rows, seed=0):
    """Random captions, a third of whose tokens are to be predicted."""
    plain = small.batch(rows, seed)
    tokens = plain["caption_tokens"]
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(seed)) < 1 / 3
    chosen &= tokens > 3
    return {
        "image": plain["image"],
        "image_id": plain["image_id"],
        "caption_tokens": tokens.masked_fill(chosen, 3),
        "masked_labels": tokens * chosen,
        "dropout_key": torch.arange(len(tokens)),
        "caption_lengths": plain["caption_lengths"],
    }


@torch.no_grad()
def test_the_loss_is_the_sum_over_chosen_tokens_of_one_caption_after_another():
    model, batch = model_of(), batch_of(4)
    total, count = 0.0, 0
    for row, length in enumerate(batch["caption_lengths"].tolist()):
        tokens = batch["caption_tokens"][row : row + 1, :length]
        projected = model.textual.project(model.visual(batch["image"][row : row + 1]))
        mask = torch.ones(length, length, dtype=torch.bool)
        logits = model.textual(projected, tokens, mask)[0].log_softmax(-1)
        for place, label in enumerate(batch["masked_labels"][row, :length].tolist()):
            if label:
                total -= float(logits[place, label])
                count += 1
    loss = model(batch)["masked_lm"]
    # Cross-entropy is computed in float32.
    assert float(loss.total) == pytest.approx(total, rel=1e-6)
    assert int(loss.items) == count > 0


@torch.no_grad()
def test_words_behind_count_too():
    model, batch = model_of(), batch_of(2)
    changed = dict(batch, caption_tokens=batch["caption_tokens"].clone())
    last = int(batch["caption_lengths"][0]) - 2
    changed["caption_tokens"][0, last] = 4 + (batch["caption_tokens"][0, last] - 3) % 6
    first = slice(0, 2)
    grid = model.visual(batch["image"])
    before, after = model.logits(grid, batch), model.logits(grid, changed)
    assert not torch.allclose(after[0, first], before[0, first])
    assert torch.equal(after[1], before[1])


@settings(deadline=None, max_examples=10)
@given(rows=st.integers(2, 5), seed=st.integers(0, 2**32))
@torch.no_grad()
def test_no_rows_loss_depends_on_its_mates(rows, seed):
    model, batch = model_of(), batch_of(rows, seed)
    alone = [model({k: v[i : i + 1] for k, v in batch.items()})["masked_lm"] for i in range(rows)]
    whole = model(batch)["masked_lm"]
    assert int(whole.items) == sum(int(loss.items) for loss in alone)
    # Cross-entropy is computed in float32.
    expected = sum(float(loss.total) for loss in alone)
    assert float(whole.total) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_nothing_to_predict_is_a_loss_of_zero_with_zero_gradients():
    model, batch = model_of(), batch_of(2)
    loss = model(batch | {"masked_labels": torch.zeros_like(batch["masked_labels"])})["masked_lm"]
    assert (loss.mean.item(), int(loss.items)) == (0.0, 0)
    loss.mean.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_samples_have_predictions_at_the_chosen_positions():
    tokens = torch.tensor([[1, *TOKENIZER.encode("a cat"), 2]])
    labels = torch.zeros_like(tokens)
    place = 1 + TOKENIZER.encode("a cat").index(TOKENIZER.encode("cat")[0])
    labels[0, place], tokens[0, place] = tokens[0, place].clone(), 3
    model = model_of().train()

    def logits(grid, batch):
        assert len(grid) == len(batch["image"])
        assert not model.training
        return torch.nn.functional.one_hot(
            torch.full_like(batch["caption_tokens"], TOKENIZER.encode("dog")[0]), 45
        )

    model.logits = logits
    image = small.batch(1)["image"]
    batch = {"image": image, "caption_tokens": tokens, "masked_labels": labels}
    [sample] = predict_masked(model, TOKENIZER, batch)
    guess = TOKENIZER.decode([*TOKENIZER.encode("dog")[:1]])
    assert sample.target == "a cat"
    assert guess in sample.prediction
    assert model.training

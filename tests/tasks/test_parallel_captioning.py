"""Captions that are predicted in parallel, beside ones that are predicted token by token."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tests import small

from virtex.data.records import Record
from virtex.data.transforms import Augmented
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.tasks.captioning import CaptionEncoder, Captioning
from virtex.tasks.parallel_captioning import ParallelCaptionEncoder, ParallelCaptioning
from virtex.text.tokenizer import Tokenizer, train

MASK = 3
TOKENIZER = Tokenizer.from_bytes(train(["a cat of a bright dog"] * 3, 30))
CAPTIONS = CaptionTokens(TOKENIZER, max_length=10)
# Networks run in float64, but the task computes cross-entropy in float32.
CLOSE = {"rtol": 1e-5, "atol": 1e-5, "check_dtype": False}


def encoded(encoder, seed=0):
    image = Augmented(np.zeros((4, 4, 3), np.uint8))
    record = Record(7, Path("unread.jpg"), ("a cat", "a dog", "bright dog"))
    return encoder.encode(record, image, np.random.default_rng(seed))


def model_of():
    return ParallelCaptioning(small.backbone(), small.decoder(), MASK).double().eval()


def batch_of(parallel, seed=0):
    batch = small.batch(len(parallel), seed)
    del batch["reversed_tokens"]
    return batch | {"parallel": torch.tensor(parallel)}


def plain_loss(model, image, tokens, parallel):
    """One caption: the sum of minus the logarithm of each token's probability."""
    head = model.textual
    projected = head.project(model.visual(image.unsqueeze(0)))
    costs = []
    for length in range(1, len(tokens)):
        read = torch.full((1, len(tokens) - 1), MASK) if parallel else tokens[None, :length]
        everything = torch.ones(read.shape[1], read.shape[1], dtype=torch.bool)
        logits = head(projected, read, everything if parallel else everything.tril())
        costs.append(-torch.log_softmax(logits[0, length - 1], dim=0)[tokens[length]])
    return torch.stack(costs).sum()


@pytest.mark.parametrize(
    "parallel", [[True] * 3, [False] * 3, [True, False, True]], ids=["all", "none", "some"]
)
@torch.no_grad()
def test_the_loss_is_that_of_one_token_after_another(parallel):
    model, batch = model_of(), batch_of(parallel)
    expected = sum(
        plain_loss(model, image, tokens[:length], one)
        for image, tokens, length, one in zip(
            batch["image"],
            batch["caption_tokens"],
            batch["caption_lengths"].tolist(),
            parallel,
            strict=True,
        )
    )
    loss = model(batch)["parallel_captioning"]
    torch.testing.assert_close(loss.total, expected, **CLOSE)
    assert loss.items == model.num_targets(batch)["parallel_captioning"]
    assert loss.items == (batch["caption_lengths"] - 1).sum()


@torch.no_grad()
def test_without_parallel_captions_it_is_captioning():
    model, batch = model_of(), batch_of([False] * 4)
    captioning = Captioning(model.visual, model.textual).eval()
    ours, theirs = model(batch)["parallel_captioning"], captioning(batch)["captioning_forward"]
    assert torch.equal(ours.total, theirs.total)
    assert torch.equal(ours.items, theirs.items)


@torch.no_grad()
def test_a_parallel_caption_is_predicted_from_the_image_alone():
    model, batch = model_of(), batch_of([True, True])
    length = int(batch["caption_lengths"][0])
    other = batch["caption_tokens"].clone()
    other[0, 1] = other[0, 1] % (small.VOCABULARY - 1) + 1
    losses = [
        plain_loss(model, batch["image"][0], tokens[0, :length], True)
        for tokens in (batch["caption_tokens"], other)
    ]
    changed = batch | {"caption_tokens": other}
    totals = [model(one)["parallel_captioning"].total for one in (batch, changed)]
    # Only the target changed: the other tokens' predictions, and so their losses, did not.
    torch.testing.assert_close(totals[1] - totals[0], losses[1] - losses[0], **CLOSE)


def test_three_of_four_captions_are_parallel():
    encoder = ParallelCaptionEncoder(CAPTIONS)
    drawn = [encoded(encoder, seed)["parallel"][0] for seed in range(400)]
    # Five standard deviations of 400 draws with probability 0.75 are 43.
    assert 257 < sum(drawn) < 343
    copy = pickle.loads(pickle.dumps(encoder))
    assert drawn == [encoded(copy, seed)["parallel"][0] for seed in range(400)]


def test_the_caption_is_the_one_that_captioning_draws():
    ours, theirs = ParallelCaptionEncoder(CAPTIONS), CaptionEncoder(CAPTIONS)
    for seed in range(20):
        captions = [encoded(encoder, seed)["caption_tokens"] for encoder in (ours, theirs)]
        assert [row.tolist() for row in captions[0]] == [row.tolist() for row in captions[1]]


def test_a_batch_holds_captions_and_how_each_is_predicted():
    encoder = ParallelCaptionEncoder(CAPTIONS)
    examples = [encoded(encoder, seed) for seed in range(6)]
    batch = encoder.collate(examples)
    assert batch["parallel"].tolist() == [example["parallel"][0] for example in examples]
    for row, example in enumerate(examples):
        tokens = example["caption_tokens"][0].tolist()
        assert batch["caption_tokens"][row, : len(tokens)].tolist() == tokens
        assert not batch["caption_tokens"][row, len(tokens) :].any()
        assert batch["caption_lengths"][row] == len(tokens)

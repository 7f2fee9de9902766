"""Log-likelihoods of texts against the losses of training, one image and one text at a time."""

import numpy as np
import pytest
import torch
from tests import small

from virtex.evaluation.likelihood import TextScorer, estimated_seconds, without_prior
from virtex.models.modes import evaluating
from virtex.tasks.caption_tokens import CaptionTokens
from virtex.text.tokenizer import Tokenizer, train

TOKENIZER = Tokenizer.from_bytes(train(["a cat and a dog"] * 3, 20))
TEXTS = [
    (1, 5, 2),
    (1, 7, 3, 9, 4, 2),
    (1, 4, 0, 6, 2),  # with an unknown piece
    (1, 3, 3, 3, 8, 9, 10, 5, 6, 7),  # cut, without [EOS]
    (1, 2),
]


@pytest.fixture(params=[(True, False), (False, True)], ids=["both", "forward, pre-norm"])
def objective(request):
    both, norm_first = request.param
    return small.captioning(both=both, norm_first=norm_first, dropout=0.5).double().eval()


def scorer(objective, rows):
    heads = [(objective.textual, False)]
    if objective.backward_textual is not None:
        heads.append((objective.backward_textual, True))
    return TextScorer(tuple(heads), CaptionTokens(TOKENIZER, small.LENGTH), rows)


def images():
    return small.batch(3)["image"]


def slow(objective):
    """Minus the mean of the losses of all directions, from the objective's own forward pass."""
    values = np.zeros((3, len(TEXTS)))
    for row, image in enumerate(images()):
        for column, text in enumerate(TEXTS):
            tokens = torch.tensor([text])
            losses = objective(
                {
                    "image": image[None],
                    "image_id": torch.tensor([0]),
                    "dropout_key": torch.tensor([0]),
                    "caption_tokens": tokens,
                    "reversed_tokens": tokens.flip(1),
                    "caption_lengths": torch.tensor([len(text)]),
                }
            )
            totals = [float(loss.total) for loss in losses.values()]
            values[row, column] = -sum(totals) / len(totals)
    return values


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_log_likelihoods_are_those_of_the_training_loss(objective, rows):
    with evaluating(objective):
        grid = objective.visual(images())
        expected = slow(objective)
    found = scorer(objective, rows).log_likelihoods(grid, TEXTS)
    assert found.dtype == np.float64
    # Float64 sums in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert len(np.unique(found.round(9))) == found.size, "the image or the text plays no part"


def test_an_image_has_the_same_likelihoods_in_any_batch(objective):
    with evaluating(objective):
        grid = objective.visual(images())
    one = scorer(objective, 8)
    whole = one.log_likelihoods(grid, TEXTS)
    parts = [one.log_likelihoods(grid[row : row + 1], TEXTS) for row in range(3)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-12)
    reverse = one.log_likelihoods(grid, TEXTS[::-1])
    np.testing.assert_allclose(reverse[:, ::-1], whole, rtol=1e-12)


def test_texts_are_prepared_as_captions_in_training():
    one = scorer(small.captioning(), 8)
    assert one.tokens(["A CÁT"]) == [(1, *TOKENIZER.encode("a cat"), 2)]
    (cut,) = one.tokens(["a cat and a dog and a cat and a dog"])
    assert len(cut) == small.LENGTH
    assert cut[-1] != TOKENIZER.eos_index


def test_unknown_pieces_and_cut_texts_are_counted_and_named():
    one = scorer(small.captioning(), 8)
    lines = one.findings(["a cat", "a жук", "a cat and a dog and a cat and a dog"], "prompts")
    assert lines == [
        "1 of 3 prompts have pieces that the vocabulary lacks, which do not count: 'a жук'",
        "1 of 3 prompts are longer than MAX_CAPTION_LENGTH (10) and were cut: "
        "'a cat and a dog and a cat and a dog'",
    ]
    assert one.findings(["a cat"], "prompts") == []


def test_the_prior_of_a_text_is_its_mean_over_the_images():
    scores = np.array([[-1.0, -9.0], [-3.0, -5.0]])
    np.testing.assert_array_equal(without_prior(scores), [[1.0, -2.0], [-1.0, 2.0]])


def test_the_estimated_time_grows_with_images_and_tokens():
    """A clock that moves one second at each call: a measurement takes one second."""
    objective = small.captioning().eval()
    with evaluating(objective):
        grid = objective.visual(images())
    ticks = iter(range(100))
    texts = [(1, 5, 4, 2)] * 8
    # Two texts for three images are measured, of eight texts for thirty.
    seconds = estimated_seconds(scorer(objective, 6), grid, texts, 30, lambda: float(next(ticks)))
    assert seconds == pytest.approx(40)

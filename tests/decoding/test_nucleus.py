"""Nucleus sampling against a plain one over dictionaries of words' costs.

Scores are float32 sums of at most eight logarithms of size ten, rounded to 1e-6 each; hence 1e-4.
Draws in which a probability lies nearer than 1e-5 to what it is compared with are left out.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests import small
from tests.decoding.languages import (
    EOS,
    SOS,
    Language,
    Prefixes,
    next_token,
    nothing_computed,
    recompute,
    trimmed,
)

from virtex.decoding.nucleus import draw_uniforms, nucleus_sampling
from virtex.models.decoder import causal_mask

NEAR = 1e-5
LIKELIEST, RAREST = 0.0, math.nextafter(1.0, 0.0)
samplings = given(
    vocabulary=st.integers(3, 8),
    images=st.integers(1, 3),
    samples=st.integers(1, 4),
    max_tokens=st.integers(1, 6),
    nucleus_size=st.floats(0.05, 1.0),
    seed=st.integers(0, 2**32 - 1),
)


def sample(language, uniforms, nucleus_size):
    """Per image a list of (words, score), and the rows of every call."""
    calls = []
    found = nucleus_sampling(
        next_token(language, calls),
        Prefixes(tuple((image,) for image in range(len(uniforms)))),
        uniforms=uniforms,
        nucleus_size=nucleus_size,
        sos_index=SOS,
        eos_index=EOS,
    )
    return as_lists(found), calls


def as_lists(hypotheses):
    return [
        list(zip(map(tuple, rows), scores, strict=True))
        for rows, scores in zip(hypotheses.tokens.tolist(), hypotheses.scores.tolist(), strict=True)
    ]


def sample_decoder(step, cache, uniforms, nucleus_size=0.9):
    return nucleus_sampling(
        step,
        cache,
        uniforms=uniforms,
        nucleus_size=nucleus_size,
        sos_index=SOS,
        eos_index=EOS,
    )


def nucleus(costs, size):
    """The likeliest words, in order, until their probabilities reach `size`: (word, renormalised).

    Assumes that rounding does not decide which those are.
    """
    kept, mass = [], 0.0
    for word in sorted(costs, key=lambda word: -costs[word]):
        assume(abs(mass - size) > NEAR)
        if mass >= size:
            break
        assume(not kept or kept[-1][1] - math.exp(costs[word]) > NEAR)
        kept.append((word, math.exp(costs[word])))
        mass += kept[-1][1]
    return [(word, probability / mass) for word, probability in kept]


def word_at(uniform, shares):
    """The word whose interval holds the number, if (word, share) are laid out from 0 to 1."""
    end = 0.0
    for word, share in shares:
        end += share
        assume(abs(end - uniform) > NEAR)
        if uniform < end:
            return word
    raise AssertionError("the shares sum to one")


def plain_sample(language, image, uniforms, nucleus_size):
    words, score = (), 0.0
    for uniform in uniforms:
        costs = language.costs(image, (SOS, *words))
        word = word_at(uniform, nucleus(costs, nucleus_size))
        words, score = (*words, word), score + costs[word]
        if word == EOS:
            break
    return words, score


@settings(deadline=None, max_examples=80)
@samplings
def test_sampling_equals_a_plain_one(vocabulary, images, samples, max_tokens, nucleus_size, seed):
    language = Language(vocabulary, seed)
    uniforms = draw_uniforms(seed, range(images), samples=samples, max_tokens=max_tokens)
    found, _ = sample(language, uniforms, nucleus_size)
    for image, hypotheses in enumerate(found):
        expected = [plain_sample(language, image, row, nucleus_size) for row in uniforms[image]]
        expected.sort(key=lambda hypothesis: -hypothesis[1])
        scores = [score for _, score in hypotheses]
        assert scores == pytest.approx([score for _, score in expected], abs=1e-4)
        assert scores == sorted(scores, reverse=True)
        # In whatever order, where two scores are too close to tell.
        assert sorted(trimmed(words) for words, _ in hypotheses) == sorted(w for w, _ in expected)


@settings(deadline=None, max_examples=40)
@given(
    vocabulary=st.integers(3, 8),
    nucleus_size=st.floats(0.05, 1.0) | st.just(1.0),
    seed=st.integers(0, 2**32),
)
def test_words_come_in_proportion_to_the_renormalised_nucleus(vocabulary, nucleus_size, seed):
    language, count = Language(vocabulary, seed), 2000
    costs = language.costs(0, (SOS,))
    expected = dict(nucleus(costs, nucleus_size))
    if nucleus_size == 1.0:
        assert expected.keys() == costs.keys()
    evenly = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    found, _ = sample(language, evenly.view(1, count, 1), nucleus_size)
    drawn = [words[0] for words, _ in found[0]]
    for word in costs:
        # Evenly spaced numbers meet an interval as often as its length says, but for its ends.
        assert drawn.count(word) == pytest.approx(expected.get(word, 0.0) * count, abs=1.01)


@settings(deadline=None, max_examples=40)
@samplings
def test_a_tiny_nucleus_is_the_likeliest_word(
    vocabulary, images, samples, max_tokens, nucleus_size, seed
):
    del nucleus_size
    language = Language(vocabulary, seed)
    uniforms = draw_uniforms(seed, range(images), samples=samples, max_tokens=max_tokens)
    found, _ = sample(language, uniforms, 1e-9)
    for image, hypotheses in enumerate(found):
        for words, _ in hypotheses:
            for length, word in enumerate(trimmed(words)):
                costs = language.costs(image, (SOS, *words[:length]))
                assert word == max(costs, key=costs.get)


class Even(Language):
    """All words are as likely as each other."""

    def logits(self, image, words):  # noqa: ARG002
        return np.zeros(self.vocabulary)


@pytest.mark.parametrize(
    ("nucleus_size", "kept"),
    [(0.01, 1), (0.24, 1), (0.26, 2), (0.49, 2), (0.51, 3), (0.74, 3), (0.76, 4), (1.0, 4)],
)
def test_the_word_that_reaches_the_size_is_the_last_kept(nucleus_size, kept):
    """Of equally likely words, the first come first."""
    ends = torch.tensor([LIKELIEST, RAREST], dtype=torch.float64).view(1, 2, 1)
    found, _ = sample(Even(4, 0), ends, nucleus_size)
    assert [words for words, _ in found[0]] == [(0,), (kept - 1,)]


def test_impossible_words_are_never_drawn():
    class Halves(Language):
        def logits(self, image, words):  # noqa: ARG002
            return np.array([-np.inf, -np.inf, -np.inf, 0.0, 0.0, -np.inf])

    ends = torch.tensor([LIKELIEST, RAREST], dtype=torch.float64).view(1, 2, 1)
    found, _ = sample(Halves(6, 0), ends.expand(1, 2, 5), 1.0)
    assert [words for words, _ in found[0]] == [(3,) * 5, (4,) * 5]


@settings(deadline=None, max_examples=40)
@samplings
def test_laws_of_every_hypothesis(vocabulary, images, samples, max_tokens, nucleus_size, seed):
    language = Language(vocabulary, seed)
    uniforms = draw_uniforms(seed, range(images), samples=samples, max_tokens=max_tokens)
    found, calls = sample(language, uniforms, nucleus_size)
    for image, hypotheses in enumerate(found):
        assert len(hypotheses) == samples
        for words, score in hypotheses:
            length = len(trimmed(words))
            assert set(words[length:]) <= {EOS}
            cost = sum(language.costs(image, (SOS, *words[:t]))[words[t]] for t in range(length))
            assert score == pytest.approx(cost, abs=1e-4)
    # One call a token: the first for the images, then one row a sample.
    steps = len(found[0][0][0])
    assert 1 <= steps <= max_tokens
    assert [len(rows) for rows in calls] == [images] + [images * samples] * (steps - 1)
    ended = [words[-1] == EOS for hypotheses in found for words, _ in hypotheses]
    assert steps == max_tokens or all(ended)
    one_earlier = [EOS in words[:-1] for hypotheses in found for words, _ in hypotheses]
    assert not all(one_earlier)


@torch.no_grad()
def test_scores_are_the_models_own_log_probabilities():
    """Of whole captions through the decoder at once, whatever the nucleus left out."""
    decoder = small.decoder().double().eval()
    grid = grid_of(4)
    uniforms = draw_uniforms(0, range(4), samples=5, max_tokens=small.LENGTH)
    found = sample_decoder(decoder.decode_step, decoder.prefill(grid), uniforms, nucleus_size=0.6)
    for image, hypotheses in enumerate(as_lists(found)):
        for words, score in hypotheses:
            said = torch.tensor([trimmed(words)])
            read = torch.cat((torch.tensor([[SOS]]), said[:, :-1]), dim=1)
            projected = decoder.project(grid[image : image + 1])
            length = read.shape[1]
            logits = decoder(projected, read, causal_mask(torch.tensor([length]), length))
            costs = torch.log_softmax(logits, dim=-1).gather(2, said.unsqueeze(2))
            assert score == pytest.approx(float(costs.sum()), abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(
    norm_first=st.booleans(),
    images=st.integers(1, 3),
    samples=st.integers(1, 4),
    max_tokens=st.integers(1, small.LENGTH),
    seed=st.integers(0, 2**32 - 1),
)
@torch.no_grad()
def test_a_decoder_with_memory_draws_what_recomputing_draws(
    norm_first, images, samples, max_tokens, seed
):
    decoder = small.decoder(norm_first=norm_first, seed=seed).double().eval()
    grid = grid_of(images, seed)
    uniforms = draw_uniforms(seed, range(images), samples=samples, max_tokens=max_tokens)
    fast = sample_decoder(decoder.decode_step, decoder.prefill(grid), uniforms)
    slow = sample_decoder(recompute(decoder), nothing_computed(decoder, grid), uniforms)
    # Logits agree to 1e-12, so a number would have to hit an edge of an interval that narrow.
    assert fast.tokens.tolist() == slow.tokens.tolist()
    torch.testing.assert_close(fast.scores, slow.scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("parts", [[1, 1, 1, 1, 1, 1], [4, 2], [5, 1], [2, 2, 2]])
@torch.no_grad()
def test_samples_do_not_depend_on_the_division_into_batches(parts):
    decoder, grid, keys = small.decoder().double().eval(), grid_of(6), torch.arange(100, 106)

    def of_batch(images, keys):
        uniforms = draw_uniforms(7, keys.tolist(), samples=3, max_tokens=small.LENGTH)
        hypotheses = as_lists(
            sample_decoder(decoder.decode_step, decoder.prefill(images), uniforms)
        )
        return [[trimmed(words) for words, _ in captions] for captions in hypotheses]

    divided = [
        captions
        for part in zip(grid.split(parts), keys.split(parts), strict=True)
        for captions in of_batch(*part)
    ]
    assert of_batch(grid, keys) == divided
    assert len({words for captions in divided for words in captions}) > 6


def test_numbers_depend_on_seed_key_sample_and_token_alone():
    whole = draw_uniforms(3, [5, 2**40, 0], samples=4, max_tokens=6)
    assert torch.equal(whole, draw_uniforms(3, [5, 2**40, 0], samples=4, max_tokens=6))
    fewer = draw_uniforms(3, [0, 5], samples=2, max_tokens=4)
    assert torch.equal(fewer, whole[[2, 0], :2, :4])
    # Each number of another seed is another, and no two rows are alike.
    assert not (draw_uniforms(4, [5, 2**40, 0], samples=4, max_tokens=6) == whole).any()
    assert whole.unique().numel() == whole.numel()


def test_numbers_are_spread_evenly_from_zero_to_one():
    numbers = draw_uniforms(0, range(40), samples=5, max_tokens=20).flatten().sort().values
    assert numbers.dtype == torch.float64
    assert 0 <= numbers[0] <= numbers[-1] < 1
    # Kolmogorov's distance: of 4000 even draws it is above 0.031 once in a thousand times.
    evenly = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    assert (numbers - evenly).abs().max() < 0.031


def grid_of(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, small.CHANNELS, 2, 2, generator=generator, dtype=torch.float64)


def test_keys_may_be_any_number_of_64_bits():
    keys = [0, -1, -(2**63), 2**63 - 1]
    uniforms = draw_uniforms(0, keys, samples=1, max_tokens=3)
    assert len({row.tobytes() for row in uniforms.numpy()}) == len(keys)

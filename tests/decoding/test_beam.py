"""Beam search against a plain one over dictionaries of words' costs, and against enumeration.

Tolerance of scores 1e-4: at most six float32 logarithms of size ten, rounded to 1e-6 each. Two
scores nearer than that could change places, so such draws are left out.
"""

import itertools

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

from virtex.decoding.beam import beam_search

CLOSE = 1e-4
searches = given(
    vocabulary=st.integers(3, 6),
    images=st.integers(1, 3),
    beam_size=st.integers(1, 6),
    max_tokens=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)


def search(language, images, beam_size, max_tokens):
    """Per image a list of (words, score), and the rows of every call."""
    calls = []
    beams = beam_search(
        next_token(language, calls),
        Prefixes(tuple((image,) for image in range(images))),
        images=images,
        beam_size=beam_size,
        max_tokens=max_tokens,
        sos_index=SOS,
        eos_index=EOS,
        device=torch.device("cpu"),
    )
    found = [
        list(zip(map(tuple, rows), scores, strict=True))
        for rows, scores in zip(beams.tokens.tolist(), beams.scores.tolist(), strict=True)
    ]
    return found, calls


def continuations(language, image, words):
    """What a hypothesis may go on with: word to cost."""
    if words and words[-1] == EOS:
        return {EOS: 0.0}
    costs = language.costs(image, (SOS, *words))
    return {token: cost for token, cost in costs.items() if words[-1:] != (token,)}


def best(hypotheses, count):
    """The `count` best of (words, score); assumes that no two scores are too close to tell."""
    ordered = sorted(hypotheses, key=lambda hypothesis: -hypothesis[1])
    assume(all(a[1] - b[1] > 10 * CLOSE for a, b in itertools.pairwise(ordered)))
    return ordered[:count]


def plain_search(language, image, beam_size, max_tokens):
    beams = best([((t,), c) for t, c in language.costs(image, (SOS,)).items()], beam_size)
    for _ in range(max_tokens - 1):
        if all(words[-1] == EOS for words, _ in beams):
            break
        offered = []
        for words, score in beams:
            following = best(continuations(language, image, words).items(), 2)
            offered += [((*words, token), score + cost) for token, cost in following]
        beams = best(offered, beam_size)
    return beams


@settings(deadline=None, max_examples=60)
@searches
def test_search_equals_a_plain_one(vocabulary, images, beam_size, max_tokens, seed):
    beam_size = min(beam_size, vocabulary)
    language = Language(vocabulary, seed)
    found, _ = search(language, images, beam_size, max_tokens)
    for image, hypotheses in enumerate(found):
        expected = plain_search(language, image, beam_size, max_tokens)
        assert [trimmed(w) for w, _ in hypotheses] == [trimmed(w) for w, _ in expected]
        assert [s for _, s in hypotheses] == pytest.approx([s for _, s in expected], abs=CLOSE)


@settings(deadline=None, max_examples=40)
@given(vocabulary=st.integers(3, 6), seed=st.integers(0, 2**32))
def test_a_beam_as_wide_as_the_vocabulary_finds_the_best_pair_of_words(vocabulary, seed):
    language = Language(vocabulary, seed)
    pairs = []
    for first, cost in language.costs(0, (SOS,)).items():
        second = continuations(language, 0, (first,))
        pairs += [((first, token), cost + following) for token, following in second.items()]
    (expected,) = best(pairs, 1)
    found, _ = search(language, 1, vocabulary, 2)
    assert found[0][0][0] == expected[0]


@settings(deadline=None, max_examples=40)
@searches
def test_one_beam_takes_the_likeliest_word_each_time(
    vocabulary, images, beam_size, max_tokens, seed
):
    del beam_size
    language = Language(vocabulary, seed)
    found, _ = search(language, images, 1, max_tokens)
    for image, [(words, _)] in enumerate(found):
        chosen = ()
        for _ in words:
            costs = continuations(language, image, chosen)
            chosen += (max(costs, key=costs.get),)
        assert words == chosen


@settings(deadline=None, max_examples=40)
@searches
def test_laws_of_every_hypothesis(vocabulary, images, beam_size, max_tokens, seed):
    beam_size = min(beam_size, vocabulary)
    language = Language(vocabulary, seed)
    found, calls = search(language, images, beam_size, max_tokens)
    for image, hypotheses in enumerate(found):
        assert len({words for words, _ in hypotheses}) == beam_size
        scores = [score for _, score in hypotheses]
        assert scores == sorted(scores, reverse=True)
        for words, score in hypotheses:
            length = len(trimmed(words))
            assert set(words[length:]) <= {EOS}
            pairs = itertools.pairwise(trimmed(words))
            assert all(one != other for one, other in pairs)
            cost = sum(language.costs(image, (SOS, *words[:t]))[words[t]] for t in range(length))
            assert score == pytest.approx(cost, abs=CLOSE)
    # One call a token: the first for the images, then one row a beam.
    steps = len(found[0][0][0])
    assert steps <= max_tokens
    assert [len(rows) for rows in calls] == [images] + [images * beam_size] * (steps - 1)
    ended = [words[-1] == EOS for hypotheses in found for words, _ in hypotheses]
    assert steps == max_tokens or all(ended)


def test_search_ends_when_every_beam_has_ended():
    class Short(Language):
        def logits(self, image, words):  # noqa: ARG002
            """The second word is always [EOS]."""
            return np.eye(self.vocabulary)[EOS] * (50 if len(words) == 2 else -50)

    found, calls = search(Short(5, 0), images=2, beam_size=3, max_tokens=9)
    assert len(calls) == 2
    assert all(words[-1] == EOS for hypotheses in found for words, _ in hypotheses)


def test_images_do_not_see_each_other():
    language = Language(6, 0)
    together, _ = search(language, 3, 4, 5)
    first, _ = search(language, 1, 4, 5)
    assert [(trimmed(w), s) for w, s in together[0]] == [(trimmed(w), s) for w, s in first[0]]


@settings(deadline=None, max_examples=25)
@given(
    norm_first=st.booleans(),
    images=st.integers(1, 3),
    beam_size=st.integers(1, 5),
    max_tokens=st.integers(1, small.LENGTH),
    seed=st.integers(0, 2**32),
)
@torch.no_grad()
def test_a_decoder_with_memory_finds_what_recomputing_finds(
    norm_first, images, beam_size, max_tokens, seed
):
    decoder = small.decoder(norm_first=norm_first, seed=seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(images, small.CHANNELS, 2, 2, generator=generator, dtype=torch.float64)

    fast, slow = (
        beam_search(
            step,
            cache,
            images=images,
            beam_size=beam_size,
            max_tokens=max_tokens,
            sos_index=SOS,
            eos_index=EOS,
            device=torch.device("cpu"),
        )
        for step, cache in (
            (decoder.decode_step, decoder.prefill(grid)),
            (recompute(decoder), nothing_computed(decoder, grid)),
        )
    )
    # Logits agree to 1e-12, far below the float32 in which scores are compared.
    assert fast.tokens.tolist() == slow.tokens.tolist()
    torch.testing.assert_close(fast.scores, slow.scores, rtol=1e-6, atol=1e-6)

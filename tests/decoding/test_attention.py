"""Maps of words. Tolerance 1e-12: float64 means of a few weights below one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small

from virtex.decoding.attention import split_words, word_attention
from virtex.decoding.captioner import BeamSearch, Captioner
from virtex.errors import UserError
from virtex.text.tokenizer import Tokenizer, train

TOKENIZER = Tokenizer.from_bytes(train(["ab ba"], 9))
CLOSE = {"rtol": 1e-12, "atol": 1e-12}
captions = st.lists(st.integers(0, TOKENIZER.vocab_size - 1), max_size=small.LENGTH)


def grid_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(small.CHANNELS, 2, 3, generator=generator, dtype=torch.float64)


def decoder_of(layers=2):
    return small.decoder(layers=layers).double().eval()


@settings(deadline=None, max_examples=40)
@given(tokens=captions, layer=st.integers(-2, 1))
@torch.no_grad()
def test_a_words_map_is_the_mean_at_the_tokens_before_its_pieces(tokens, layer):
    decoder, grid = decoder_of(), grid_of()
    found = word_attention(decoder, TOKENIZER, grid, tokens, layer=layer)
    words = split_words(TOKENIZER, tokens)
    assert found.words == tuple(word.text for word in words)
    assert found.maps.shape == (len(words), 2, 2, 3)
    # Read one token a time: the weights that gave the logits of the next.
    projected = decoder.project(grid.unsqueeze(0))
    for word, got in zip(words, found.maps, strict=True):
        expected = torch.zeros(2, 2, 3, dtype=torch.float64)
        for place in word.positions:
            read = torch.tensor([[TOKENIZER.sos_index, *tokens[:place]]])
            weights = decoder.cross_attention_weights(projected, read, torch.tensor([place + 1]))
            expected += weights[0, layer, :, -1].view(2, 2, 3) / len(word.positions)
        torch.testing.assert_close(got, expected, **CLOSE)
        torch.testing.assert_close(got.sum(dim=(1, 2)), torch.ones(2).double(), **CLOSE)


@torch.no_grad()
def test_what_is_said_after_a_word_does_not_move_its_map():
    decoder, grid, tokens = decoder_of(), grid_of(), TOKENIZER.encode("ab ba ab")
    whole = word_attention(decoder, TOKENIZER, grid, tokens)
    places = split_words(TOKENIZER, tokens)[0].positions
    first = word_attention(decoder, TOKENIZER, grid, tokens[: len(places)])
    torch.testing.assert_close(first.maps, whole.maps[:1], **CLOSE)


@pytest.mark.parametrize(
    ("tokens", "layer", "message"),
    [
        ([4], 2, "layer 2: the head has 2; give 0 to 1, or -1 for the last"),
        ([4], -3, "layer -3: the head has 2"),
        ([4] * (small.LENGTH + 1), -1, "11 tokens; the head reads at most 10"),
    ],
)
def test_what_the_head_lacks_is_named(tokens, layer, message):
    with pytest.raises(UserError, match=message):
        word_attention(decoder_of(), TOKENIZER, grid_of(), tokens, layer=layer)


def test_a_captioner_looks_in_evaluation_mode_and_leaves_the_modes():
    model = small.captioning(dropout=0.5)
    captioner = Captioner(model.visual, model.textual, TOKENIZER, BeamSearch(2), small.LENGTH)
    image, tokens = small.batch(1)["image"][0], TOKENIZER.encode("ab ba")
    before = small.state_of(model)
    one, other = (captioner.attention(image, tokens) for _ in range(2))
    assert torch.equal(one.maps, other.maps)
    assert one.words == ("ab", "ba")
    assert one.maps.shape == (2, 2, 2, 2)
    assert all(part.training for part in model.modules())
    small.assert_same(model.state_dict(), before)
    first = captioner.attention(image, tokens, layer=0)
    assert torch.equal(first.maps, one.maps)  # of one layer, the first is the last

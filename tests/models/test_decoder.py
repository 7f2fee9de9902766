"""The textual head: both ways to its logits, what a token may see, and its first weights.

Tolerance 1e-12: float64 sums of order one in another order.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small
from torch import nn

from virtex.models.decoder import (
    TokenEmbedding,
    Transformer,
    TransformerDecoder,
    causal_mask,
    initialise,
    tied_output,
)

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
NORMS = pytest.mark.parametrize("norm_first", [False, True], ids=["postnorm", "prenorm"])


def grid_of(images, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, small.CHANNELS, 2, 3, generator=generator, dtype=torch.float64)


def decoder_of(norm_first=False, layers=2, seed=0):
    return small.decoder(norm_first=norm_first, layers=layers, seed=seed).double().eval()


def words(rows, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, small.VOCABULARY, (rows, length), generator=generator)


def logits_of(decoder, grid, tokens):
    lengths = torch.full((len(tokens),), tokens.shape[1])
    return decoder(decoder.project(grid), tokens, causal_mask(lengths, tokens.shape[1]))


@settings(deadline=None, max_examples=25)
@given(
    norm_first=st.booleans(),
    layers=st.integers(1, 3),
    images=st.integers(1, 3),
    beams=st.integers(1, 3),
    length=st.integers(1, small.LENGTH),
    seed=st.integers(0, 2**32),
)
@torch.no_grad()
def test_one_token_a_time_equals_all_at_once(norm_first, layers, images, beams, length, seed):
    """Also when rows are reordered, repeated and dropped between the steps, as a search does."""
    decoder, grid = decoder_of(norm_first, layers, seed), grid_of(images, seed)
    of_image = torch.arange(images).repeat_interleave(beams)
    generator = torch.Generator().manual_seed(seed)
    # Words, and unknown ones too.
    drawn = torch.randint(0, small.VOCABULARY, (length, len(of_image)), generator=generator)
    cache, tokens = decoder.prefill(grid), drawn[0].unsqueeze(1)
    for newest in drawn[1:]:
        got, cache = decoder.decode_step(tokens[:, -1], cache)
        torch.testing.assert_close(got, logits_of(decoder, grid[of_image], tokens)[:, -1], **CLOSE)
        parents = torch.randint(0, beams, of_image.shape, generator=generator) + of_image * beams
        cache = cache.select(parents)
        tokens = torch.cat((tokens[parents], newest.unsqueeze(1)), dim=1)
    got, cache = decoder.decode_step(tokens[:, -1], cache)
    torch.testing.assert_close(got, logits_of(decoder, grid[of_image], tokens)[:, -1], **CLOSE)
    assert cache.length == length


@torch.no_grad()
def test_memory_is_a_value():
    """A step, or a choice of rows, leaves the cache that it was given as it was."""
    decoder = decoder_of()
    _, cache = decoder.decode_step(torch.tensor([3, 4]), decoder.prefill(grid_of(2)))
    first, _ = decoder.decode_step(torch.tensor([5, 6]), cache)
    decoder.decode_step(torch.tensor([7, 8]), cache.select(torch.tensor([1, 0])))
    again, _ = decoder.decode_step(torch.tensor([5, 6]), cache)
    assert torch.equal(first, again)


@NORMS
@torch.no_grad()
def test_later_tokens_do_not_reach_earlier_logits(norm_first):
    decoder, grid, tokens = decoder_of(norm_first), grid_of(2), words(2, 8)
    before = logits_of(decoder, grid, tokens)
    for changed in range(1, 8):
        other = tokens.clone()
        other[:, changed:] = tokens[:, changed:] % (small.VOCABULARY - 1) + 1
        after = logits_of(decoder, grid, other)
        assert torch.equal(before[:, :changed], after[:, :changed])
        assert not torch.isclose(before[:, changed], after[:, changed]).all(dim=-1).any()


@NORMS
@torch.no_grad()
def test_padding_does_not_reach_a_rows_logits(norm_first):
    decoder, grid, tokens = decoder_of(norm_first), grid_of(1), words(1, 4)
    padded = torch.cat((tokens, torch.zeros(1, 3, dtype=torch.int64)), dim=1)
    got = decoder(decoder.project(grid), padded, causal_mask(torch.tensor([4]), 7))
    assert got.isfinite().all()
    torch.testing.assert_close(got[:, :4], logits_of(decoder, grid, tokens), **CLOSE)


@NORMS
@torch.no_grad()
def test_padded_positions_see_no_padding(norm_first):
    """What stands behind a row's length, padding or not, is no key for anyone."""
    decoder, grid = decoder_of(norm_first, layers=1), grid_of(1)
    tokens, mask = words(1, 6), causal_mask(torch.tensor([3]), 6)
    other = tokens.clone()
    other[:, 3:5] = tokens[:, 3:5] % (small.VOCABULARY - 1) + 1
    projected = decoder.project(grid)
    before, after = (decoder(projected, t, mask) for t in (tokens, other))
    assert torch.equal(before[:, [0, 1, 2, 5]], after[:, [0, 1, 2, 5]])


@torch.no_grad()
def test_a_row_does_not_see_its_batch_mates():
    decoder, grid, tokens = decoder_of(), grid_of(3), words(3, 5)
    together = logits_of(decoder, grid, tokens)
    alone = torch.cat([logits_of(decoder, grid[i : i + 1], tokens[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, **CLOSE)


@torch.no_grad()
def test_every_grid_position_matters_and_their_order_does_not():
    """The grid has no position of its own: a picture's place is in its features."""
    decoder, grid, tokens = decoder_of(), grid_of(1), words(1, 5)
    logits = logits_of(decoder, grid, tokens)
    shuffled = grid.flatten(2)[:, :, [3, 0, 5, 1, 4, 2]].view_as(grid)
    torch.testing.assert_close(logits_of(decoder, shuffled, tokens), logits, **CLOSE)
    for position in range(6):
        other = grid.clone()
        other.flatten(2)[:, :, position] += 1
        assert not torch.allclose(logits_of(decoder, other, tokens), logits)


@NORMS
@torch.no_grad()
def test_cross_attention_rows_sum_to_one_and_are_zero_at_padding(norm_first):
    decoder, grid, tokens = decoder_of(norm_first, layers=3), grid_of(2), words(2, 6)
    weights = decoder.cross_attention_weights(decoder.project(grid), tokens, torch.tensor([6, 4]))
    assert weights.shape == (2, 3, 2, 6, 6)
    assert (weights >= 0).all()
    sums = torch.ones(2, 3, 2, 6, dtype=torch.float64)
    sums[1, :, :, 4:] = 0.0
    torch.testing.assert_close(weights.sum(dim=-1), sums, **CLOSE)
    # No layer, head, token or image looks as another does.
    rows = torch.cat((weights[0].flatten(0, 2), weights[1, :, :, :4].flatten(0, 2)))
    distances = (rows.unsqueeze(0) - rows.unsqueeze(1)).abs().amax(dim=-1)
    assert (distances + torch.eye(len(rows))).min() > 1e-6


@NORMS
@torch.no_grad()
def test_cross_attention_is_each_layers_on_the_way_to_the_logits(norm_first):
    decoder, grid, tokens = decoder_of(norm_first, layers=3), grid_of(2), words(2, 5)
    projected, lengths = decoder.project(grid), torch.tensor([5, 5])
    weights = decoder.cross_attention_weights(projected, tokens, lengths)
    x, earlier = decoder.embedding(tokens), torch.ones(5, 5, dtype=torch.bool).tril()
    for index, layer in enumerate(decoder.transformer.layers):
        of_layer = []
        x = layer(x, layer.multihead_attn.keys_values(projected), earlier, of_layer)
        torch.testing.assert_close([weights[:, index]], of_layer, **CLOSE)
    logits = decoder.output(decoder.transformer.norm(x))
    torch.testing.assert_close(logits, decoder(projected, tokens, earlier), **CLOSE)


@torch.no_grad()
def test_cross_attention_sees_neither_later_words_nor_padding_nor_other_images():
    decoder, grid, tokens = decoder_of(), grid_of(2), words(2, 6)
    projected, lengths = decoder.project(grid), torch.tensor([6, 4])
    weights = decoder.cross_attention_weights(projected, tokens, lengths)
    alone = decoder.cross_attention_weights(projected[1:], tokens[1:, :4], lengths[1:])
    torch.testing.assert_close(weights[1:, :, :, :4], alone, **CLOSE)
    shorter = decoder.cross_attention_weights(projected[:1], tokens[:1, :3], torch.tensor([3]))
    torch.testing.assert_close(weights[:1, :, :, :3], shorter, **CLOSE)


@torch.no_grad()
def test_cross_attention_moves_with_the_grid():
    decoder, grid, tokens = decoder_of(), grid_of(1), words(1, 4)
    order = [3, 0, 5, 1, 4, 2]
    shuffled = grid.flatten(2)[:, :, order].view_as(grid)
    weights, moved = (
        decoder.cross_attention_weights(decoder.project(g), tokens, torch.tensor([4]))
        for g in (grid, shuffled)
    )
    torch.testing.assert_close(moved, weights[..., order], **CLOSE)


def test_embedding_by_hand():
    embedding = TokenEmbedding(5, 4, 3, 0.0, padding_index=0).double()
    small.spread(embedding, seed=0)
    got = embedding(torch.tensor([[2, 0]]), first_position=1)
    summed = embedding.words.weight[2] + embedding.positions.weight[1]
    centred = summed - summed.mean()
    normal = centred / (centred.square().mean() + 1e-8).sqrt()
    expected = normal * embedding.layer_norm.weight + embedding.layer_norm.bias
    torch.testing.assert_close(got[0, 0], expected, **CLOSE)
    assert torch.equal(got[0, 1], torch.zeros(4, dtype=torch.float64))


def test_the_tied_weight_is_one_parameter_and_collects_both_gradients():
    decoder = decoder_of()
    assert decoder.output.weight is decoder.embedding.words.weight
    assert decoder.output.bias.shape == (small.VOCABULARY,)
    loss = logits_of(decoder, grid_of(1), torch.tensor([[3, 4]]))[..., 5].sum()
    loss.backward()
    touched = decoder.embedding.words.weight.grad.abs().sum(dim=1) > 0
    assert touched.nonzero().flatten().tolist() == [3, 4, 5]  # read, read, predicted


def test_first_weights_are_small_normal_and_biases_zero():
    torch.manual_seed(0)
    embedding = TokenEmbedding(40, 32, small.LENGTH, 0.0, padding_index=0)
    body = Transformer(layers=1, width=32, heads=2, feedforward=64, dropout=0.0, norm_first=True)
    head = TransformerDecoder(nn.Linear(6, 32), embedding, body, tied_output(embedding))
    initialise(head, std=0.02)
    for name, parameter in head.named_parameters():
        values = parameter.detach()
        if name.endswith("bias"):
            assert not values.any(), name
        elif "norm" in name:
            assert values.eq(1).all(), name
        else:
            # Five standard errors of the deviation of so many draws.
            error = 5 / math.sqrt(2 * values.numel())
            assert float(values.std()) == pytest.approx(0.02, rel=error), name
    assert not embedding.words.weight[0].any()
    assert embedding.words.weight[1:].all()


def test_a_tied_output_keeps_the_embeddings_values():
    embedding = TokenEmbedding(5, 4, 3, 0.0, padding_index=0)
    before = embedding.words.weight.clone()
    tied_output(embedding)
    assert torch.equal(embedding.words.weight, before)

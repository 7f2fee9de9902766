"""Attention against sums written out and against torch's own layers, all in float64.

Tolerance 1e-12: sums of a few dozen float64 products of order one, in another order.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small
from torch import nn

from virtex.models.attention import Attention, DecoderLayer
from virtex.models.dropout import draw_dropout

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def attention_of(width, heads, seed=0, dropout=0.0):
    attention = Attention(width, heads, dropout).double()
    small.spread(attention, seed)
    return attention


def slow_attention(attention, x, memory, may_look):
    """One query at a time: softmax of scaled products over the positions it may look at."""
    width = x.shape[-1]
    size = width // attention.heads
    weights = attention.in_proj_weight.split(width)
    biases = attention.in_proj_bias.split(width)
    query, key, value = (
        source @ weight.T + bias
        for source, weight, bias in zip((x, memory, memory), weights, biases, strict=True)
    )
    mixed = torch.zeros_like(x)
    for row, t, head in torch.cartesian_prod(
        *map(torch.arange, (*x.shape[:2], attention.heads))
    ).tolist():
        part = slice(head * size, (head + 1) * size)
        seen = [s for s in range(memory.shape[1]) if may_look[row][t][s]]
        scores = [float(query[row, t, part] @ key[row, s, part]) / math.sqrt(size) for s in seen]
        total = sum(map(math.exp, scores))
        for s, score in zip(seen, scores, strict=True):
            mixed[row, t, part] += math.exp(score) / total * value[row, s, part]
    return mixed @ attention.out_proj.weight.T + attention.out_proj.bias


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 3),
    queries=st.integers(1, 4),
    positions=st.integers(1, 4),
    heads=st.integers(1, 3),
    size=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_attention_equals_softmax_by_hand(rows, queries, positions, heads, size, seed):
    attention = attention_of(heads * size, heads, seed)
    x = normal(rows, queries, heads * size, seed=seed)
    memory = normal(rows, positions, heads * size, seed=seed + 1)
    mask = normal(rows, queries, positions, seed=seed + 2) > 0
    mask[:, :, 0] = True  # softmax over nothing is not defined
    with torch.no_grad():
        got = attention.attend(
            attention.queries(x), attention.keys_values(memory), mask.unsqueeze(1)
        )
        expected = slow_attention(attention, x, memory, mask.tolist())
    torch.testing.assert_close(got, expected, **CLOSE)


def test_projections_together_are_the_projections_apart():
    attention, x = attention_of(12, 3), normal(2, 5, 12)
    query, key, value = attention.queries_keys_values(x)
    torch.testing.assert_close(attention.queries(x), query, **CLOSE)
    torch.testing.assert_close(attention.keys_values(x), (key, value), **CLOSE)


def test_attention_equals_torchs_with_the_same_state_dict():
    attention, x = attention_of(12, 3), normal(2, 5, 12)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(attention.state_dict())
    earlier = torch.ones(5, 5, dtype=torch.bool).tril()
    query, key, value = attention.queries_keys_values(x)
    got = attention.attend(query, (key, value), earlier)
    expected, _ = theirs(x, x, x, attn_mask=~earlier, need_weights=False)
    torch.testing.assert_close(got, expected, **CLOSE)


def test_weights_equal_torchs_and_give_what_attending_gives():
    attention, x, memory = attention_of(12, 3), normal(2, 5, 12), normal(2, 4, 12, seed=1)
    query, (key, value) = attention.queries(x), attention.keys_values(memory)
    weights = attention.weights(query, key)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(attention.state_dict())
    _, expected = theirs(x, memory, memory, average_attn_weights=False)
    torch.testing.assert_close(weights, expected, **CLOSE)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]), **CLOSE)
    mixed = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, attention.attend(query, (key, value)), **CLOSE)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("norm_first", [False, True], ids=["postnorm", "prenorm"])
def test_layer_equals_torchs_with_the_same_state_dict(norm_first, dropout):
    layer = DecoderLayer(12, 3, 20, dropout, norm_first).double()
    small.spread(layer, seed=0)
    theirs = nn.TransformerDecoderLayer(
        12, 3, 20, dropout, activation="gelu", norm_first=norm_first, batch_first=True
    ).double()
    theirs.load_state_dict(layer.state_dict())
    # The same masks one after another, if dropout stands in the same places. That within torch's
    # attention cannot be replaced.
    for name in ("dropout", "dropout1", "dropout2", "dropout3"):
        setattr(theirs, name, layer.dropout)
    for attention in (layer.self_attn, layer.multihead_attn):
        attention.dropout.p = 0.0
    theirs.self_attn.dropout = theirs.multihead_attn.dropout = 0.0
    x, grid = normal(2, 5, 12), normal(2, 4, 12, seed=1)
    earlier = torch.ones(5, 5, dtype=torch.bool).tril()
    draw_dropout(layer, torch.tensor([7, 8]))
    got = layer(x, layer.multihead_attn.keys_values(grid), earlier)
    draw_dropout(layer, torch.tensor([7, 8]))
    expected = theirs(x, grid, tgt_mask=~earlier)
    torch.testing.assert_close(got, expected, **CLOSE)


def test_dropout_takes_whole_weights_of_attention():
    attention = attention_of(8, 2, dropout=0.5)
    query, key, value = attention.queries_keys_values(normal(3, 5, 8))
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    draw_dropout(attention, torch.arange(3))
    got = attention.attend(query, (key, value), mask)
    draw_dropout(attention, torch.arange(3))
    weights = attention.dropout(attention.weights(query, key, mask))
    assert 0.2 < float((weights[..., 0] == 0).double().mean()) < 0.8
    expected = attention.out_proj((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(got, expected, **CLOSE)
    attention.dropout.p = 0.0
    plain = attention.weights(query, key, mask) @ value
    expected = attention.out_proj(plain.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention.attend(query, (key, value), mask), expected, **CLOSE)


@pytest.mark.parametrize("norm_first", [False, True], ids=["postnorm", "prenorm"])
def test_a_layer_returns_the_weights_that_torchs_uses(norm_first):
    layer = DecoderLayer(12, 3, 20, 0.0, norm_first).double()
    small.spread(layer, seed=0)
    theirs = nn.TransformerDecoderLayer(
        12, 3, 20, 0.0, activation="gelu", norm_first=norm_first, batch_first=True
    ).double()
    theirs.load_state_dict(layer.state_dict())
    x, grid = normal(2, 5, 12), normal(2, 4, 12, seed=1)
    earlier = torch.ones(5, 5, dtype=torch.bool).tril()
    asked = []

    def ask_for_weights(attention, given):
        hook.remove()
        asked.append(attention(*given, average_attn_weights=False)[1])

    hook = theirs.multihead_attn.register_forward_pre_hook(ask_for_weights)
    theirs(x, grid, tgt_mask=~earlier)
    weights = []
    keys_values = layer.multihead_attn.keys_values(grid)
    output = layer(x, keys_values, earlier, weights)
    torch.testing.assert_close(weights, asked, **CLOSE)
    assert torch.equal(output, layer(x, keys_values, earlier))


@pytest.mark.parametrize("norm_first", [False, True], ids=["postnorm", "prenorm"])
def test_nothing_is_dropped_in_evaluation(norm_first):
    dropping = DecoderLayer(12, 3, 20, 0.9, norm_first).double().eval()
    keeping = DecoderLayer(12, 3, 20, 0.0, norm_first).double()
    keeping.load_state_dict(dropping.state_dict())
    x, mask = normal(2, 5, 12), torch.ones(5, 5, dtype=torch.bool)
    grid = keeping.multihead_attn.keys_values(normal(2, 4, 12))
    assert torch.equal(dropping(x, grid, mask), keeping(x, grid, mask))


def test_width_must_divide_into_heads():
    with pytest.raises(RuntimeError):
        Attention(10, 3, 0.0).queries(torch.zeros(1, 1, 10))

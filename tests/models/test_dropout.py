import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from virtex.models.dropout import KeyedDropout, draw_dropout, keep_mask

KEYS = torch.arange(2000, dtype=torch.int32)


def kept(shape, p=0.5, keys=KEYS):
    return keep_mask(keys, torch.Size((len(keys), *shape)), p)


def correlation(one, other):
    return float(torch.corrcoef(torch.stack((one.flatten(), other.flatten())).double())[0, 1])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_elements_stay_with_the_probability_asked_for(p):
    mask = kept((10, 30), p)
    # Five standard deviations of a binomial.
    bound = 5 * (p * (1 - p) / mask.numel()) ** 0.5
    assert float(mask.double().mean()) == pytest.approx(1 - p, abs=bound)
    for axis in (0, 1, 2):
        means = mask.double().mean(dim=[other for other in (0, 1, 2) if other != axis])
        spread = (p * (1 - p) * means.numel() / mask.numel()) ** 0.5
        assert float((means - (1 - p)).abs().max()) < 5.5 * spread


def test_neighbours_do_not_go_together():
    mask = kept((20, 40))
    bound = 5 / mask.numel() ** 0.5
    for shift in (1, 2, 7):
        for axis in (0, 1, 2):
            assert abs(correlation(mask, mask.roll(shift, axis))) < bound


@settings(deadline=None, max_examples=30)
@given(rows=st.integers(1, 6), tokens=st.integers(1, 9), seed=st.integers(0, 2**31 - 1))
def test_a_mask_depends_on_key_and_position_alone(rows, tokens, seed):
    keys = torch.arange(seed, seed + 6, dtype=torch.int64).to(torch.int32)
    whole = keep_mask(keys, torch.Size((6, 2, 9, 12)), 0.3)
    part = keep_mask(keys[-rows:], torch.Size((rows, 2, tokens, 5)), 0.3)
    assert torch.equal(part, whole[-rows:, :, :tokens, :5])


def test_parts_of_a_batch_drop_as_the_whole():
    dropout = KeyedDropout(0.4)
    x, keys = torch.ones(6, 3, 50), torch.tensor([5, 2**40, -3, 7, 0, 2**62])
    draw_dropout(dropout, keys)
    whole = dropout(x)
    for rows in ([0, 1, 2], [3], [5, 0]):
        draw_dropout(dropout, keys[rows])
        assert torch.equal(dropout(x[rows]), whole[rows])
    assert whole.unique().tolist() == pytest.approx([0, 1 / 0.6])


def test_calls_modules_and_keys_have_masks_of_their_own():
    model = nn.ModuleList([KeyedDropout(0.5), KeyedDropout(0.5)])
    x = torch.ones(3, 4000)
    masks = []
    for keys in ([1, 2, 3], [1 + 2**32, 2 + 2**32, 3 + 2**32]):
        draw_dropout(model, torch.tensor(keys))
        masks += [part(x) > 0 for part in (model[0], model[0], model[1], model[1])]
    rows = [row for mask in masks for row in mask]
    for index, one in enumerate(rows):
        for other in rows[:index]:
            assert abs(correlation(one, other)) < 5 / 4000**0.5


def test_gradients_go_through_what_stayed():
    dropout = KeyedDropout(0.25)
    x = torch.ones(2, 8, requires_grad=True)
    draw_dropout(dropout, torch.tensor([0, 1]))
    y = dropout(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_evaluation_needs_no_keys():
    dropout = KeyedDropout(0.5).eval()
    x = torch.randn(2, 3)
    assert dropout(x) is x

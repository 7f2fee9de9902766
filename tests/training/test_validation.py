"""Validation: a mean over items that leaves everything as it was."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small
from tests.small import assert_same, state_of
from torch import nn

from virtex.training.loop import validate
from virtex.training.precision import Precision, choose_precision

FLOAT32 = choose_precision(False, torch.device("cpu"))
BFLOAT16 = Precision(torch.bfloat16, "cpu", "asked for")


def validated(model, batches, precision=FLOAT32):
    return validate(model, batches, precision=precision, sum_over_processes=lambda tensor: tensor)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_validation_is_a_mean_over_items_however_they_are_divided(seed, data):
    model, whole = small.captioning(seed=seed % 7), small.batch(6, seed)
    order = data.draw(st.permutations(range(6)))
    cuts = sorted(data.draw(st.sets(st.integers(1, 5))))
    parts = [order[a:b] for a, b in itertools.pairwise([0, *cuts, 6])]
    got = validated(model, [small.rows_of(whole, list(part)) for part in parts])
    # Float32 losses of some forty tokens, in networks that see other shapes.
    assert got == pytest.approx(validated(model, [whole]), rel=1e-5)


@torch.no_grad()
def test_validation_equals_the_sum_over_the_count():
    model, batches = small.captioning(), [small.batch(3, seed=1), small.batch(2, seed=2)]
    got = validated(model, iter(batches))
    model.eval()
    for name, value in got.items():
        terms = [model(batch)[name] for batch in batches]
        expected = sum(float(t.total) for t in terms) / sum(int(t.items) for t in terms)
        assert value == pytest.approx(expected, rel=1e-12)


def test_a_request_to_stop_on_any_process_ends_validation_without_a_result():
    model, batch = small.captioning(), small.batch(3)
    batches = iter([batch, batch, batch])
    asked = iter([False, True])
    got = validate(
        *(model, batches),
        precision=FLOAT32,
        sum_over_processes=lambda sums: sums,
        stopping=lambda: next(asked),
    )
    assert got is None
    assert len(list(batches)) == 1
    assert model.training

    def with_one_that_stopped(sums):
        sums[-1, 0] += 1
        return sums

    others = validate(model, [batch], precision=FLOAT32, sum_over_processes=with_one_that_stopped)
    assert others is None


def test_validation_sums_over_processes_before_it_divides():
    model, batch = small.captioning(), small.batch(3)
    plain = validated(model, [batch])
    other = {"total": 5.0, "count": 7}

    def with_another_process(sums):
        theirs = torch.tensor([other["total"], other["count"]], dtype=sums.dtype)
        return torch.cat((sums[:-1] + theirs, sums[-1:]))

    got = validate(model, [batch], precision=FLOAT32, sum_over_processes=with_another_process)
    count = int(model(batch)["captioning_forward"].items)
    for name, mean in plain.items():
        expected = (mean * count + other["total"]) / (count + other["count"])
        assert got[name] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("precision", [FLOAT32, BFLOAT16], ids=str)
def test_validation_leaves_state_modes_gradients_and_randomness(precision):
    model = small.captioning(dropout=0.5, frozen=True).train()
    before, random = state_of(model), torch.get_rng_state()
    modes = [part.training for part in model.modules()]
    first = validated(model, [small.batch(3)], precision)
    assert validated(model, [small.batch(3)], precision) == first
    assert_same(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for part in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_validation_in_bfloat16_is_near_float32():
    model, batch = small.captioning(), small.batch(3)
    # bfloat16 rounds by 2^-9, in some ten layers: 0.2 % at worst over 40 seeds.
    exact, rounded = (validated(model, [batch], precision) for precision in (FLOAT32, BFLOAT16))
    assert rounded == pytest.approx(exact, rel=0.01)
    assert rounded != exact


def test_an_error_in_validation_leaves_the_module_in_training_mode():
    model = small.captioning()
    with pytest.raises(KeyError):
        validated(model, [{"image": small.batch(1)["image"]}])
    assert all(isinstance(part, nn.Module) and part.training for part in model.modules())

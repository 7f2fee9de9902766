import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from virtex.optim.lookahead import Lookahead

STEPS = 23


def weights(shapes=((3, 2), (4,)), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in shapes
    ]


def lookahead_of(parameters, alpha=0.5, steps=5, momentum=0.9):
    return Lookahead(
        torch.optim.SGD(parameters, lr=0.1, momentum=momentum, weight_decay=0.01),
        alpha=alpha,
        steps=steps,
    )


def descend(optimizer, parameters, first, last):
    """Gradients that depend on the weights and on the step."""
    for step in range(first, last):
        optimizer.zero_grad()
        sum((p - step % 7).square().sum() + p.sin().sum() for p in parameters).backward()
        optimizer.step()


def plain_loop(parameters, alpha, steps, momentum):
    """SGD with momentum and weight decay and the look back, as the papers' formulas."""
    fast = [p.detach().clone() for p in parameters]
    slow = [p.clone() for p in fast]
    velocity = [torch.zeros_like(p) for p in fast]
    for step in range(STEPS):
        for index in range(len(fast)):
            gradient = 2 * (fast[index] - step % 7) + fast[index].cos() + 0.01 * fast[index]
            velocity[index] = momentum * velocity[index] + gradient
            fast[index] = fast[index] - 0.1 * velocity[index]
            if (step + 1) % steps == 0:
                slow[index] = slow[index] + alpha * (fast[index] - slow[index])
                fast[index] = slow[index].clone()
    return fast


@settings(deadline=None, max_examples=25)
@given(
    alpha=st.floats(0.01, 1.0),
    steps=st.integers(1, STEPS + 1),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    seed=st.integers(0, 2**32),
)
def test_lookahead_equals_a_plain_loop(alpha, steps, momentum, seed):
    parameters = weights(seed=seed)
    expected = plain_loop(parameters, alpha, steps, momentum)
    descend(lookahead_of(parameters, alpha, steps, momentum), parameters, 0, STEPS)
    # Float64 roundings of 23 steps; the largest rate, 0.1 / (1 - 0.9), lets them grow a little.
    torch.testing.assert_close([p.detach() for p in parameters], expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(cut=st.integers(0, STEPS), steps=st.integers(1, 6))
def test_a_fresh_optimizer_with_the_state_continues_identically(cut, steps):
    whole = weights()
    descend(lookahead_of(whole, steps=steps), whole, 0, STEPS)
    begun = weights()
    first = lookahead_of(begun, steps=steps)
    descend(first, begun, 0, cut)
    saved = copy.deepcopy(first.state_dict())
    resumed = [nn.Parameter(p.detach().clone()) for p in begun]
    second = lookahead_of(resumed, steps=steps)
    second.load_state_dict(saved)
    descend(second, resumed, cut, STEPS)
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_loaded_state_is_copied():
    parameters = weights()
    first = lookahead_of(parameters)
    saved = copy.deepcopy(first.state_dict())
    second = lookahead_of(weights(seed=1))
    second.load_state_dict(saved)
    descend(second, second.param_groups[0]["params"], 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(saved["slow"], first.slow, strict=True))


def test_the_state_loads_with_weights_only(tmp_path):
    parameters = weights()
    optimizer = lookahead_of(parameters)
    descend(optimizer, parameters, 0, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    assert state["counter"] == 3
    assert all(torch.equal(a, b) for a, b in zip(state["slow"], optimizer.slow, strict=True))


@pytest.mark.parametrize(
    "shapes",
    [((3, 2),), ((3, 2), (4,), (1,)), ((3, 2), (5,)), ((3, 2), (1,)), ((2, 3), (4,))],
    ids=["fewer", "more", "longer", "broadcastable", "transposed"],
)
def test_another_models_state_is_an_error_that_changes_nothing(shapes):
    parameters = weights()
    optimizer = lookahead_of(parameters)
    descend(optimizer, parameters, 0, 7)
    before = copy.deepcopy(optimizer.state_dict())
    other = weights(shapes)
    stranger = lookahead_of(other)
    descend(stranger, other, 0, 1)
    with pytest.raises(ValueError, match=r"parameter|shape"):
        optimizer.load_state_dict(stranger.state_dict())
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


def test_groups_are_the_wrapped_optimizers():
    optimizer = lookahead_of(weights())
    optimizer.param_groups[0]["lr"] = 0.7
    assert optimizer.optimizer.param_groups[0]["lr"] == 0.7


def test_zero_grad_drops_gradients():
    parameters = weights()
    optimizer = lookahead_of(parameters)
    parameters[0].sum().backward()
    optimizer.zero_grad()
    assert parameters[0].grad is None

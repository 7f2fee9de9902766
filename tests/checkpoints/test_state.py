"""Taking over a checkpoint: the optimizer's state."""

import copy

import pytest
import torch
from tests.same import first_difference

from virtex.checkpoints.state import load_optimizer
from virtex.optim.lookahead import Lookahead

SGD = (torch.optim.SGD, {"momentum": 0.9})
ADAMW = (torch.optim.AdamW, {})


def stepped(kind, weights, *, channels_last, fused, lookahead, state=None, steps=1):
    """A parameter of these weights after some steps, which go on from a state if one is given."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    parameter = torch.nn.Parameter(weights.clone(memory_format=layout))
    make, options = kind
    optimizer = make([{"params": [parameter], "name": "all"}], lr=0.1, fused=fused, **options)
    if lookahead:
        optimizer = Lookahead(optimizer, alpha=0.5, steps=2)
    if state is not None:
        load_optimizer(optimizer, state)
    generator = torch.Generator().manual_seed(7)
    for _ in range(steps):
        gradient = torch.randn(weights.shape, generator=generator)
        parameter.grad = gradient.clone(memory_format=layout)
        optimizer.step()
    return parameter.detach(), optimizer


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("kind", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_resumes_in_another_memory_layout(kind, before, after, lookahead):
    """Fused kernels read the state in the parameter's layout, whatever its own is."""
    weights = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    found = {}
    for fused in (False, True):
        common = {"fused": fused, "lookahead": lookahead}
        saved, optimizer = stepped(kind, weights, channels_last=before, **common)
        state = optimizer.state_dict()
        found[fused], _ = stepped(kind, saved, channels_last=after, state=state, steps=3, **common)
    # Kernels round in their own ways.
    assert torch.allclose(found[True], found[False], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [(False, True), (True, False)])
def test_the_kernel_is_not_taken_over_from_a_checkpoint(old, new):
    weights = torch.ones(8, 4, 3, 3)
    common = {"channels_last": False, "lookahead": False}
    _, optimizer = stepped(SGD, weights, fused=old, **common)
    _, resumed = stepped(SGD, weights, fused=new, state=optimizer.state_dict(), **common)
    assert resumed.param_groups[0]["fused"] is new


@pytest.mark.parametrize("shape", [(64, 32, 3, 3), (1024, 512), (513,)])
def test_steps_of_the_fused_kernel_are_those_of_the_plain_one(shape):
    """To rounding, in the elements that fill no whole vector of the processor."""
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    common = {"channels_last": False, "lookahead": True, "steps": 9}
    plain, fused = (stepped(SGD, weights, fused=fused, **common)[0] for fused in (False, True))
    assert torch.allclose(plain, fused, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("kind", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_a_state_that_is_saved_before_the_next_step_is_the_one_loaded(kind, lookahead):
    """As after a stop in the last validation, which is made up for when the run resumes."""
    weights = torch.ones(8, 4, 3, 3)
    common = {"channels_last": True, "fused": True, "lookahead": lookahead}
    _, optimizer = stepped(kind, weights, **common)
    optimizer.param_groups[0]["lr"] = 0.0123  # of the schedule
    state = copy.deepcopy(optimizer.state_dict())
    _, loaded = stepped(kind, weights, state=state, steps=0, **common)
    assert first_difference(loaded.state_dict(), optimizer.state_dict()) is None

import pytest
import torch

from virtex.models.state_dict import misfits, model_weights


def zeros(**shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_weights_that_fit_have_no_misfits():
    assert misfits(zeros(a=3, b=(2, 2)), zeros(b=(2, 2), a=3)) == []


def test_every_misfit_is_of_its_kind():
    assert misfits(zeros(a=3, b=4, c=5), zeros(c=6, d=7) | {"b": 1}) == [
        "  1 missing: a",
        "  1 left over: d",
        "  2 of another shape: b int for [4], c [6] for [5]",
    ]


def test_many_misfits_are_counted_and_the_first_five_named():
    own = {f"w{number}": torch.zeros(1) for number in range(12)}
    assert misfits(own, {}) == ["  12 missing: w0, w1, w10, w11, w2"]


@pytest.mark.parametrize("state", [{"a": 1, 2: 3}, {"model": {"a": 1, 2: 3}, "iteration": 4}])
def test_weights_are_under_model_or_bare_and_named_by_text(state):
    assert model_weights(state) == {"a": 1, "2": 3}


def test_a_model_that_is_no_mapping_is_a_weight_of_that_name():
    assert model_weights({"model": "resnet18"}) == {"model": "resnet18"}

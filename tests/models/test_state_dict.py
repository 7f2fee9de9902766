import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import small
from tests.published import ENCODERS, older_names
from tests.small import assert_same

from virtex.models.state_dict import (
    current_names,
    fill_tied_keys,
    model_weights,
    state_dict_mismatches,
    tied_conflicts,
    tied_keys,
)

WORDS, OUTPUT = "textual.embedding.words.weight", "textual.output.weight"

words = st.sampled_from(
    ["textual", "backward_textual", "visual_projection", "encoder", "transformer", "layers", "norm"]
)
names = st.lists(words, min_size=1, max_size=5).map(".".join)


def zeros(**shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_weights_that_fit_have_no_mismatches():
    assert state_dict_mismatches(zeros(a=3, b=(2, 2)), zeros(b=(2, 2), a=3)) == []


def test_every_mismatch_is_of_its_kind():
    assert state_dict_mismatches(zeros(a=3, b=4, c=5), zeros(c=6, d=7) | {"b": 1}) == [
        "  missing keys (1): a",
        "  unexpected keys (1): d",
        "  size mismatch (2): b int instead of [4], c [6] instead of [5]",
    ]


def test_many_mismatches_are_counted_and_the_first_five_named():
    own = {f"w{number}": torch.zeros(1) for number in range(12)}
    assert state_dict_mismatches(own, {}) == ["  missing keys (12): w0, w1, w10, w11, w2, …"]


@pytest.mark.parametrize("state", [{"a": 1, 2: 3}, {"model": {"a": 1, 2: 3}, "iteration": 4}])
def test_weights_are_under_model_or_bare_and_named_by_text(state):
    assert model_weights(state) == {"a": 1, "2": 3}


def test_a_model_that_is_no_mapping_is_a_weight_of_that_name():
    assert model_weights({"model": "resnet18"}) == {"model": "resnet18"}


def test_the_tied_keys_of_bicaptioning_are_those_of_both_heads():
    groups = {group[0]: group[1:] for group in tied_keys(small.captioning())}
    assert groups.pop(WORDS) == [OUTPUT, f"backward_{WORDS}", f"backward_{OUTPUT}"]
    assert groups == {
        f"textual.{name}": [f"backward_textual.{name}"]
        for name in (
            *("visual_projection.weight", "visual_projection.bias"),
            *("embedding.positions.weight", "embedding.layer_norm.weight"),
            *("embedding.layer_norm.bias", "output.bias"),
        )
    }


def test_a_state_dict_is_complete_and_without_conflicts():
    model = small.captioning()
    weights = small.state_of(model)
    assert_same(fill_tied_keys(model, weights), weights)
    assert tied_conflicts(model, weights) == []


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_each_tied_tensor_is_enough_under_one_of_its_keys(kept):
    model = small.captioning()
    weights = small.state_of(model)
    alone = dict(weights)
    for group in tied_keys(model):
        for name in group:
            if name != group[kept % len(group)]:
                del alone[name]
    assert len(alone) < len(weights)
    assert_same(fill_tied_keys(model, alone), weights)


def test_a_tensor_that_is_missing_under_all_names_stays_missing():
    model = small.captioning(both=False)
    weights = small.state_of(model)
    del weights[WORDS], weights[OUTPUT]
    assert not {WORDS, OUTPUT} & fill_tied_keys(model, weights).keys()


@pytest.mark.parametrize("other", [torch.ones(11, 8), torch.ones(3), torch.ones(11, 8).half(), "a"])
def test_different_values_under_names_of_one_tensor_are_named(other):
    model = small.captioning(both=False)
    weights = small.state_of(model) | {OUTPUT: other}
    assert tied_conflicts(model, weights) == [
        f"  {WORDS} and {OUTPUT} differ, but are tied in the model"
    ]


def test_one_tensor_agrees_with_itself_even_if_it_is_not_finite():
    model = small.captioning(both=False)
    broken = torch.full((11, 8), torch.nan)
    weights = small.state_of(model) | {WORDS: broken, OUTPUT: broken.view(11, 8)}
    assert tied_conflicts(model, weights) == []


@pytest.fixture(params=[True, False], ids=["bicaptioning", "captioning"])
def weights(request):
    return small.captioning(both=request.param).state_dict()


def test_current_names_stay_and_keep_their_order(weights):
    assert list(current_names(weights).items()) == list(weights.items())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_older_names_give_the_same_weights(weights, encoder):
    older = older_names(weights, encoder)
    assert f"textual.{encoder}layers.0.linear1.weight" in older
    assert "visual_projection.bias" in older
    assert_same(current_names(older), weights)


def test_names_of_a_wrapped_model_give_the_same_weights(weights):
    wrapped = {f"module.{name}": value for name, value in weights.items()}
    assert_same(current_names(wrapped), weights)
    older = older_names(weights, ENCODERS[0])
    wrapped = {f"module.{name}": value for name, value in older.items()}
    assert_same(current_names(wrapped), weights)


def test_a_wrapper_is_one_of_all_names_or_none():
    assert current_names({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}


def test_a_head_that_is_not_there_gets_no_projection():
    forward = {"visual_projection.bias": 1, "textual.output.bias": 2}
    assert "backward_textual.visual_projection.bias" not in current_names(forward)
    assert current_names({"visual_projection.bias": 1}) == {"visual_projection.bias": 1}


@pytest.mark.parametrize(
    "name",
    [
        *("fc.weight", "encoder.layers.0.bias", "visual.encoder.norm.bias", "textual"),
        *("my_textual.encoder.norm.bias", "textual.encoder.other.bias"),
    ],
)
def test_foreign_names_go_through(name):
    assert current_names({name: 1, "textual.output.bias": 2})[name] == 1


def test_two_names_of_one_weight_are_both_kept():
    # So that the second is reported as unexpected, whatever the order.
    old, older = "textual.transformer.encoder.norm.bias", "textual.encoder.norm.bias"
    current = "textual.transformer.norm.bias"
    assert current_names({older: 1, current: 2}) == {older: 1, current: 2}
    assert current_names({current: 1, older: 2}) == {current: 1, older: 2}
    assert current_names({older: 1, old: 2}) == {current: 1, old: 2}
    both = {"visual_projection.bias": 1, "textual.visual_projection.bias": 2}
    assert current_names(both) == both


@given(st.dictionaries(names, st.integers()))
def test_mapping_twice_is_mapping_once(weights):
    once = current_names(weights)
    assert current_names(once) == once


@given(st.dictionaries(names, st.integers()))
def test_no_value_is_lost(weights):
    assert set(current_names(weights).values()) == set(weights.values())

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import small
from tests.published import ENCODERS, older_names
from tests.small import assert_same

from virtex.models.upstream import current_names

words = st.sampled_from(
    ["textual", "backward_textual", "visual_projection", "encoder", "transformer", "layers", "norm"]
)
names = st.lists(words, min_size=1, max_size=5).map(".".join)


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
    # So that the second is reported as left over, whatever the order.
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

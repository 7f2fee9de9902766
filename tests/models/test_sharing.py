import pytest
import torch
from tests import small
from tests.small import assert_same

from virtex.models.sharing import completed, contradictions, shared_names

WORDS, OUTPUT = "textual.embedding.words.weight", "textual.output.weight"


def test_the_shared_names_of_bicaptioning_are_those_of_both_heads():
    groups = {group[0]: group[1:] for group in shared_names(small.captioning())}
    assert groups.pop(WORDS) == [OUTPUT, f"backward_{WORDS}", f"backward_{OUTPUT}"]
    assert groups == {
        f"textual.{name}": [f"backward_textual.{name}"]
        for name in (
            *("visual_projection.weight", "visual_projection.bias"),
            *("embedding.positions.weight", "embedding.layer_norm.weight"),
            *("embedding.layer_norm.bias", "output.bias"),
        )
    }


def test_a_state_dict_is_complete_and_agrees_with_itself():
    model = small.captioning()
    weights = small.state_of(model)
    assert_same(completed(model, weights), weights)
    assert contradictions(model, weights) == []


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_each_shared_tensor_is_enough_under_one_of_its_names(kept):
    model = small.captioning()
    weights = small.state_of(model)
    alone = dict(weights)
    for group in shared_names(model):
        for name in group:
            if name != group[kept % len(group)]:
                del alone[name]
    assert len(alone) < len(weights)
    assert_same(completed(model, alone), weights)


def test_a_tensor_that_is_missing_under_all_names_stays_missing():
    model = small.captioning(both=False)
    weights = small.state_of(model)
    del weights[WORDS], weights[OUTPUT]
    assert not {WORDS, OUTPUT} & completed(model, weights).keys()


@pytest.mark.parametrize("other", [torch.ones(11, 8), torch.ones(3), torch.ones(11, 8).half(), "a"])
def test_different_values_under_names_of_one_tensor_are_named(other):
    model = small.captioning(both=False)
    weights = small.state_of(model) | {OUTPUT: other}
    assert contradictions(model, weights) == [
        f"  {WORDS} and {OUTPUT} differ, but are one tensor of the model"
    ]


def test_one_tensor_agrees_with_itself_even_if_it_is_not_finite():
    model = small.captioning(both=False)
    broken = torch.full((11, 8), torch.nan)
    weights = small.state_of(model) | {WORDS: broken, OUTPUT: broken.view(11, 8)}
    assert contradictions(model, weights) == []

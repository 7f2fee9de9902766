import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import small
from torch import nn

from virtex.optim.groups import parameter_groups

PUBLISHED = r".*textual.(embedding|transformer).*(norm.*|bias)"


def groups_of(model, no_decay=PUBLISHED):
    return {
        group["name"]: group
        for group in parameter_groups(
            model, visual_lr=0.2, textual_lr=1e-3, weight_decay=1e-4, no_decay=no_decay
        )
    }


def members(model, group):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in group["params"]}


def test_rates_and_decay_of_each_group():
    groups = groups_of(small.captioning())
    figures = {name: (g["lr"], g["peak_lr"], g["weight_decay"]) for name, g in groups.items()}
    assert figures == {
        "visual_decayed": (0.2, 0.2, 1e-4),
        "textual_decayed": (1e-3, 1e-3, 1e-4),
        "textual_undecayed": (1e-3, 1e-3, 0.0),
    }


def test_published_expression_by_hand():
    model = small.captioning()
    groups = groups_of(model)
    exempt = members(model, groups["textual_undecayed"])
    assert {
        "textual.embedding.layer_norm.weight",
        "textual.transformer.layers.0.norm1.weight",
        "textual.transformer.layers.0.linear1.bias",
        "backward_textual.transformer.layers.0.norm3.bias",
        "textual.transformer.layers.0.self_attn.in_proj_bias",
    } <= exempt
    decayed = members(model, groups["textual_decayed"])
    assert {
        "textual.embedding.words.weight",
        "textual.embedding.positions.weight",
        "textual.visual_projection.bias",
        "textual.output.bias",
        "textual.transformer.layers.0.linear1.weight",
    } <= decayed
    assert members(model, groups["visual_decayed"]) == {
        name for name, _ in model.named_parameters() if name.startswith("visual.")
    }


@settings(deadline=None, max_examples=25)
@given(
    no_decay=st.sampled_from(
        [PUBLISHED, "none", ".*", "visual", ".*bias", "bias", "", "textual", "norm", r".*\.bn1\."]
    ),
    frozen=st.booleans(),
    both=st.booleans(),
)
def test_each_trainable_parameter_is_in_one_of_at_most_four_groups(no_decay, frozen, both):
    model = small.captioning(both=both, frozen=frozen)
    groups = groups_of(model, no_decay)
    assert len(groups) <= 4
    assert all(group["params"] for group in groups.values())
    held = [id(parameter) for group in groups.values() for parameter in group["params"]]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert len(set(held)) == len(held)
    assert set(held) == set(trainable)


@pytest.mark.parametrize("no_decay", ["none", "bias", "transformer", "words", "extual"])
def test_an_expression_found_only_later_in_a_name_exempts_nothing(no_decay):
    assert {name for name in groups_of(small.captioning(), no_decay) if "un" in name} == set()


@pytest.mark.parametrize("no_decay", [".*", "visual|textual|backward_textual", ""])
def test_an_expression_that_matches_every_start_exempts_all(no_decay):
    assert set(groups_of(small.captioning(), no_decay)) == {
        "visual_undecayed",
        "textual_undecayed",
    }


def test_frozen_parameters_are_left_out():
    model = small.captioning(frozen=True)
    assert not any(name.startswith("visual") for name in groups_of(model))


def test_visual_is_the_part_and_not_the_word():
    """The textual head's projection of the grid learns at the textual rate."""
    model = small.captioning()
    held = members(model, groups_of(model)["textual_decayed"])
    assert "textual.visual_projection.weight" in held
    other = nn.ModuleDict({"visualizer": nn.Linear(1, 1)})
    assert set(groups_of(other)) == {"textual_decayed"}


def test_groups_are_what_torchs_optimizers_take():
    groups = groups_of(small.captioning())
    optimizer = torch.optim.SGD([dict(group) for group in groups.values()], lr=9.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 1e-3, 1e-3]
    assert [group["name"] for group in optimizer.param_groups] == list(groups)

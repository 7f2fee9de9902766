"""Modules that are built without memory and given it afterwards."""

import pytest
import torch
from tests import small
from torch import nn

from virtex.models.decoder import TokenEmbedding, tied_output
from virtex.models.modes import SizesAlone, materialise
from virtex.tasks.captioning import Captioning
from virtex.tasks.classification import LabelSetClassification
from virtex.tasks.label_targets import LabelTargets


def built(channels_last=True, frozen=False):
    return small.captioning(channels_last=channels_last, frozen=frozen)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_materialised_module_is_the_one_that_was_built_with_memory(
    monkeypatch, channels_last, frozen
):
    whole = built(channels_last, frozen)
    monkeypatch.setattr(small, "spread", lambda *_: None)  # it reads the weights
    with SizesAlone():
        module = built(channels_last, frozen)
    assert all(parameter.is_meta for parameter in module.parameters())
    materialise(module)
    module.load_state_dict({name: v.double() for name, v in whole.state_dict().items()})
    small.assert_same(module.state_dict(), whole.state_dict())
    assert isinstance(module, Captioning)
    assert module.textual.output.weight is module.textual.embedding.words.weight
    assert module.backward_textual.output is module.textual.output
    ours, theirs = (dict(m.named_parameters()) for m in (module, whole))
    assert ours.keys() == theirs.keys()
    for name, parameter in theirs.items():
        assert ours[name].stride() == parameter.stride(), name
        assert ours[name].dtype == parameter.dtype
        assert ours[name].requires_grad == parameter.requires_grad
    for (name, buffer), (other, expected) in zip(
        module.named_buffers(), whole.named_buffers(), strict=True
    ):
        assert name == other
        assert torch.equal(buffer, expected)
    batch = small.batch(3)
    for one, other in zip(module(batch).values(), whole(batch).values(), strict=True):
        assert torch.equal(one.total, other.total)


def test_what_has_memory_stays_as_it_is():
    with SizesAlone():
        module = nn.ModuleDict({"head": nn.Linear(2, 3)})
    kept = nn.Linear(3, 2)
    module["kept"] = kept
    weight = kept.weight
    materialise(module)
    assert module["kept"].weight is weight
    assert not module["head"].weight.is_meta


def test_a_label_set_keeps_the_labels_that_it_ignores():
    with SizesAlone():
        module = LabelSetClassification(small.backbone(), nn.Linear(4, 9), LabelTargets((0, 5)))
    materialise(module)
    assert module.targets.ignored.tolist() == [0, 5]


def test_tied_weights_stay_one_parameter():
    with SizesAlone():
        embedding = TokenEmbedding(11, 4, 5, 0.0, 0)
        module = nn.ModuleList([embedding, tied_output(embedding)])
    materialise(module)
    assert module[1].weight is embedding.words.weight

"""The published entry point `virtex.model_zoo.get`."""

import pytest
import torch
from tests.small import assert_same, state_of

from virtex import model_zoo
from virtex.build.model import build_objective, load_config
from virtex.errors import UserError

TINY = """
DATA: {VOCAB_SIZE: 30, UNK_INDEX: 0, SOS_INDEX: 1, EOS_INDEX: 2, MASK_INDEX: 3}
MODEL:
  VISUAL: {NAME: "torchvision::resnet18", FEATURE_SIZE: 512, ZERO_INIT_RESIDUAL: false}
  TEXTUAL: {NAME: "transdec_postnorm::L1_H32_A2_F64"}
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_weights_of_a_published_checkpoint_are_loaded(tiny, tmp_path):
    torch.manual_seed(1)
    weights = state_of(build_objective(load_config(tiny)))
    torch.save({"model": weights, "iteration": 500000}, tmp_path / "published.pth")
    model = model_zoo.get(str(tiny), pretrained=tmp_path / "published.pth")
    assert_same(model.state_dict(), weights)
    assert model.training
    assert model.visual.cnn(torch.zeros(2, 3, 32, 32)).shape == (2, 512)


def test_published_names_are_known():
    with torch.device("meta"):
        model = model_zoo.get("width_ablations/bicaptioning_R_50_L1_H512.yaml")
    assert model.textual.transformer.layers[0].linear1.out_features == 2048


def test_weights_are_not_downloaded(tiny):
    with pytest.raises(UserError, match=r"give the file of the weights, .*tiny\.pth"):
        model_zoo.get(str(tiny), pretrained=True)


def test_settings_that_leave_the_vocabulary_open_are_refused(tiny):
    tiny.write_text(TINY.replace("VOCAB_SIZE: 30, ", ""))
    with pytest.raises(UserError, match=r"does not set DATA\.VOCAB_SIZE"):
        model_zoo.get(str(tiny))

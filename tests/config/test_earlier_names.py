"""YAML files of published releases: those from 1.0 on load, those of 0.9 name what changed."""

from pathlib import Path

import pytest

from virtex.build.model import load_config
from virtex.config.packaged import find
from virtex.config.schema import Config
from virtex.errors import UserError

# The settings of the base model, as the releases named them.
RELEASE_0_9 = """
RANDOM_SEED: 0
FP16_OPT: 2
DATA:
  TOKENIZER_VOCAB: datasets/vocab/coco_10k.vocab
  TOKENIZER_MODEL: datasets/vocab/coco_10k.model
  USE_PERCENTAGE: 100.0
  USE_SINGLE_CAPTION: False
MODEL:
  NAME: bicaptioning
  TEXTUAL: {NAME: "transformer_postnorm::L1_H1024_A16_F4096", DROPOUT: 0.1}
OPTIM:
  NO_DECAY: ".*textual.*(norm.*|bias)"
  CLIP_GRAD_NORM: 10
  USE_LOOKAHEAD: True
  LOOKAHEAD_ALPHA: 0.5
  LOOKAHEAD_STEPS: 5
  LR_DECAY_NAME: cosine
"""
COMMON = """
RANDOM_SEED: 0
AMP: true
CUDNN_BENCHMARK: true
CUDNN_DETERMINISTIC: false
DATA:
  ROOT: datasets/coco
  VOCAB_SIZE: 10000
  UNK_INDEX: 0
  SOS_INDEX: 1
  EOS_INDEX: 2
  MASK_INDEX: 3
  IMAGE_CROP_SIZE: 224
  MAX_CAPTION_LENGTH: 30
MODEL:
  NAME: virtex
  VISUAL: {NAME: "torchvision::resnet50", PRETRAINED: false, FROZEN: false}
  TEXTUAL: {NAME: "transdec_postnorm::L1_H1024_A16_F4096", DROPOUT: 0.1}
OPTIM:
  LOOKAHEAD: {USE: true, ALPHA: 0.5, STEPS: 5}
  NO_DECAY: ".*textual.(embedding|transformer).*(norm.*|bias)"
"""
RELEASE_1_0 = COMMON.replace("DATA:", "DATA:\n  USE_PERCENTAGE: 100.0\n  USE_SINGLE_CAPTION: false")
RELEASE_1_4 = COMMON.replace("MODEL:", "MODEL:\n  DECODER: {NAME: beam_search, BEAM_SIZE: 5}")


@pytest.mark.parametrize("text", [RELEASE_1_0, RELEASE_1_4], ids=["1.0", "1.2 to 1.4"])
def test_settings_since_release_1_0_are_the_base_model(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert load_config(path) == load_config(Path("base"))


def test_every_setting_of_release_0_9_that_changed_is_named_in_one_message(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(RELEASE_0_9)
    with pytest.raises(UserError) as caught:
        load_config(path)
    first, *lines = str(caught.value).splitlines()
    assert first == "6 problems:"
    todays = {
        "'FP16_OPT'": "AMP",
        "'DATA.TOKENIZER_VOCAB'": "DATA.TOKENIZER_MODEL",
        "'OPTIM.USE_LOOKAHEAD'": "OPTIM.LOOKAHEAD.USE",
        "'OPTIM.LOOKAHEAD_ALPHA'": "OPTIM.LOOKAHEAD.ALPHA",
        "'OPTIM.LOOKAHEAD_STEPS'": "OPTIM.LOOKAHEAD.STEPS",
        "'MODEL.TEXTUAL.NAME'": "'transdec_postnorm::L1_H1024_A16_F4096'",
    }
    for earlier, today in todays.items():
        [line] = [line for line in lines if earlier in line]
        assert f"in {path}" in line
        assert today in line.partition(";")[2]


def test_a_release_0_9_file_that_follows_the_message_loads(tmp_path):
    path = tmp_path / "new.yaml"
    text = RELEASE_0_9.replace("FP16_OPT: 2", "AMP: true").replace("transformer_", "transdec_")
    text = text.replace("  TOKENIZER_VOCAB: datasets/vocab/coco_10k.vocab\n", "")
    lookahead = [line for line in text.splitlines() if "LOOKAHEAD" in line]
    for line in lookahead:
        text = text.replace(line + "\n", "")
    path.write_text(text + "  LOOKAHEAD: {USE: True, ALPHA: 0.5, STEPS: 5}\n")
    config = load_config(path)
    assert config.optim.lookahead == Config().optim.lookahead
    assert config.model.textual.name == "transdec_postnorm::L1_H1024_A16_F4096"


def test_the_transform_of_release_0_9_names_those_of_later_ones(tmp_path):
    path = tmp_path / "voc07_clf.yaml"
    path.write_text("DATA: {IMAGE_TRANSFORM_VAL: [global_resize, normalize]}")
    with pytest.raises(UserError, match="expected smallest_resize and center_crop"):
        load_config(path)


def test_the_published_name_of_a_runs_settings_is_found(tmp_path):
    ours, published = tmp_path / "config.yaml", tmp_path / "pretrain_config.yaml"
    assert find(published) == published
    ours.write_text("OPTIM: {LR: 0.5}")
    assert find(published) == find(published.with_suffix(".yml")) == ours
    published.write_text("OPTIM: {LR: 0.25}")
    assert find(published) == published

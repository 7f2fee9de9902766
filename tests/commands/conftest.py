"""Checkpoints of small untrained models, and pictures that look different to them."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tests import small

from virtex import __version__
from virtex.build.model import build_objective
from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.state import vocabulary_state
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.text.tokenizer import Tokenizer, train

CAPTIONS = ["a red square left of a blue circle", "two green stars above a grey ring"]
CONFIG = """
DATA:
  {VOCAB_SIZE: 45, UNK_INDEX: 0, SOS_INDEX: 1, EOS_INDEX: 2, MASK_INDEX: 3, IMAGE_CROP_SIZE: 32,
  MAX_CAPTION_LENGTH: 12}
MODEL:
  VISUAL: {NAME: "torchvision::resnet18", FEATURE_SIZE: 512, ZERO_INIT_RESIDUAL: false}
  TEXTUAL: {NAME: "transdec_postnorm::L1_H32_A2_F64"}
  DECODER: {BEAM_SIZE: 3, MAX_DECODING_STEPS: 8}
"""
LABELS = ("MODEL.NAME", "token_classification", "MODEL.TEXTUAL.NAME", "none")


def saved(directory, *overrides):
    """The path of a model's checkpoint with what `virtex pretrain` saves of it."""
    (directory / "model.yaml").write_text(CONFIG, encoding="utf-8")
    config = settings.load(Config, directory / "model.yaml", overrides)
    torch.manual_seed(0)
    objective = build_objective(config)
    if not overrides:
        small.spread(objective.textual, seed=1)  # so that its captions are not all alike
    state = {
        "model": objective.state_dict(),
        "config": config.model_dump(mode="json", by_alias=True),
        **vocabulary_state(Tokenizer.from_bytes(train(CAPTIONS, config.data.vocab_size))),
        "versions": {"virtex": __version__},
    }
    path = directory / "checkpoint_0.pth"
    checkpoint.save(path, state)
    return path


@pytest.fixture(scope="session")
def captioning_model(tmp_path_factory):
    path = saved(tmp_path_factory.mktemp("captioning"))
    yield path
    path.unlink()  # it is large


@pytest.fixture(scope="session")
def label_model(tmp_path_factory):
    path = saved(tmp_path_factory.mktemp("labels"), *LABELS)
    yield path
    path.unlink()


@pytest.fixture
def pictures(tmp_path):
    """A directory of five PNG files, 48 x 40 pixels."""
    directory = tmp_path / "pictures"
    directory.mkdir()
    for seed in range(5):
        Image.fromarray(picture(seed)).save(directory / f"{seed}.png")
    return directory


def picture(seed):
    """Soft blots of colour, (40, 48, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    """Tables are as wide as without a terminal; pytest's workers name the width of theirs."""
    monkeypatch.delenv("COLUMNS", raising=False)

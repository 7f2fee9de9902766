"""Scenes, and the configuration of a run on them."""

import shutil
from pathlib import Path

import pytest

from virtex import cli

TRAINING, VALIDATION = 40, 12


@pytest.fixture(scope="session")
def scenes(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("doctor") / "scenes"
    words = ["--train", str(TRAINING), "--val", str(VALIDATION), "--size", "64", "--only", "coco"]
    assert cli.main(["synthesize", str(root), *words]) == 0
    return root


def write_configuration(root: Path, directory: Path) -> Path:
    """The configuration of a run on scenes, with a vocabulary."""
    vocabulary = directory / "v.model"
    words = ["--output", str(vocabulary), "--vocab-size", "100"]
    assert cli.main(["tokenizer", str(root), *words]) == 0
    path = directory / "run.yaml"
    path.write_text(
        f"DATA: {{ROOT: {root}, TOKENIZER_MODEL: {vocabulary}, IMAGE_CROP_SIZE: 64}}\n"
        "MODEL: {NAME: bicaptioning, VISUAL: {NAME: 'torchvision::resnet18'},"
        " TEXTUAL: {NAME: 'transdec_postnorm::L1_H64_A2_F128'}}\n"
        "OPTIM: {BATCH_SIZE: 8, NUM_ITERATIONS: 4, WARMUP_STEPS: 1}\n"
    )
    return path


@pytest.fixture(scope="session")
def configuration(scenes, tmp_path_factory) -> Path:
    return write_configuration(scenes, tmp_path_factory.mktemp("configuration"))


@pytest.fixture
def scenes_configuration(scenes, tmp_path) -> Path:
    """The same for a copy of the scenes, which a test may change."""
    return write_configuration(Path(shutil.copytree(scenes, tmp_path / "data")), tmp_path)

"""Real COCO images through the real reader; skipped where there are none."""

import json
import os
from pathlib import Path

import pytest

from virtex.cli import main

ROOT = os.environ.get("VIRTEX_COCO_MINI")
BASE = (
    Path(__file__).parents[2]
    / "src"
    / "virtex"
    / "configs"
    / "_base_bicaptioning_R_50_L1_H1024.yaml"
)

pytestmark = pytest.mark.skipif(
    ROOT is None, reason="VIRTEX_COCO_MINI names no directory of COCO images"
)


def test_the_base_config_learns_from_real_images(tmp_path):
    """A small head and small crops, to take seconds; everything else is the base config's."""
    vocabulary = tmp_path / "vocabulary.model"
    captions = Path(str(ROOT)) / "annotations" / "captions_train2017.json"
    sizes = ["--vocab-size", "500"]
    assert main(["tokenizer", str(captions), "--output", str(vocabulary), *sizes]) == 0
    run = tmp_path / "run"
    arguments = [
        *("pretrain", "--config", str(BASE), "--serialization-dir", str(run)),
        *("--log-every", "1", "--cpu-workers", "1", "--config-override"),
        *("DATA.ROOT", str(ROOT), "DATA.TOKENIZER_MODEL", str(vocabulary)),
        *("DATA.VOCAB_SIZE", "500", "DATA.IMAGE_CROP_SIZE", "64", "OPTIM.BATCH_SIZE", "16"),
        *("MODEL.VISUAL.NAME", "torchvision::resnet18", "MODEL.VISUAL.FEATURE_SIZE", "512"),
        *("MODEL.TEXTUAL.NAME", "transdec_postnorm::L1_H128_A4_F256"),
        *("OPTIM.NUM_ITERATIONS", "8", "OPTIM.WARMUP_STEPS", "2"),
    ]
    assert main(arguments) == 0
    lines = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 8
    assert losses[-1] < losses[0]

"""Measurements of steps and of the loader."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny_network

from virtex.build.data import open_data
from virtex.build.model import build_objective, load_config
from virtex.config.schema import Config
from virtex.data.dataset import ExampleDataset
from virtex.doctor.measure import MemoryFit, free_memory, measure_loader
from virtex.doctor.step_trial import StepCost, measure_step, random_batch
from virtex.errors import RunError


def test_memory_grows_in_a_line():
    costs = (StepCost(4, 1.0, 1_400), StepCost(16, 2.0, 2_600))
    fit = MemoryFit("cpu", costs, free=10_000, largest=60)
    assert [fit.bytes_of(size) for size in (4, 16, 64)] == [1_400, 2_600, 7_400]
    assert fit.bytes_of(fit.largest) <= 8_000 < fit.bytes_of(fit.largest + 20)


def test_there_is_memory():
    assert 10**8 < free_memory("cpu") < 10**14


@pytest.fixture
def config(scenes_configuration):
    return open_data(load_config(scenes_configuration)).config


def test_a_step_is_measured_in_a_process_of_its_own(config):
    cost = measure_step(config, 2, "cpu", seconds=0.1)
    assert cost is not None
    assert 0 < cost.seconds < 60
    assert cost.peak_bytes > 10**8
    assert cost.images_per_second == 2 / cost.seconds


@pytest.mark.parametrize("per_image", [1, 3, "all"])
@pytest.mark.parametrize(
    "name",
    ["bicaptioning", "masked_lm", "parallel_captioning", "token_classification"],
)
def test_the_random_batch_suits_every_task_and_setting(name, per_image):
    labels = name.endswith("classification")
    config = Config(
        data={
            **{"vocab_size": 20, "image_crop_size": 32, "captions_per_image": per_image},
            **{"unk_index": 0, "sos_index": 1, "eos_index": 2, "mask_index": 3},
        },
        model={
            "name": name,
            "visual": {"name": f"torchvision::{tiny_network.NAME}"},
            "textual": {"name": "none" if labels else "transdec_postnorm::L1_H16_A2_F16"},
            "auxiliary": {"tokens": {"weight": 0.0 if labels else 1.0}},
        },
        optim={"batch_size": 2},
    )
    objective = build_objective(config)
    losses = objective(random_batch(config, torch.device("cpu")))
    assert losses.keys() == set(objective.loss_names)
    captions = {1: 1, 3: 3, "all": 5}[per_image]
    if name == "bicaptioning":
        tokens = losses["captioning_forward"].items
        assert int(tokens) > 2 * (captions - 0.5) * 29 * 0.8


def test_a_step_that_fails_says_why(config):
    with pytest.raises(RunError, match=r"ended without a result: .*nosuchdevice"):
        measure_step(config, 2, "nosuchdevice", seconds=0.1)


def test_the_loader_is_measured_on_images_and_on_smaller_ones(scenes_configuration):
    data = open_data(load_config(scenes_configuration))
    rng = np.random.default_rng(0)
    for path in Path(data.config.data.root).glob("train2017/*"):
        Image.fromarray(rng.integers(0, 256, (600, 800, 3), np.uint8)).save(path, "JPEG")
    examples: ExampleDataset = data.training
    speed = measure_loader(examples, 64)
    assert speed is not None
    assert speed.short_side == 96
    assert speed.packed is not None
    assert min(speed.packed, speed.per_worker) > 0
    assert 0 < speed.decoding <= 1
    assert speed.workers_for(10 * speed.per_worker) == 11

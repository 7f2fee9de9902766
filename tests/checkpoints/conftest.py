import pytest
import torch

from virtex.checkpoints import file as checkpoint


@pytest.fixture
def state():
    """A function that makes the state of a very small run at an iteration."""

    def make(iteration):
        generator = torch.Generator().manual_seed(iteration)
        weights = {
            "weight": torch.randn(30, 20, generator=generator),
            "bias": torch.randn(20, generator=generator),
        }
        return {
            "model": weights,
            "optimizer": {"slow": [torch.randn(7, generator=generator)], "counter": 3},
            "scaler": {},
            "iteration": iteration,
            "config": {"OPTIM": {"LR": 1e-3, "LR_STEPS": [1, 2]}, "AMP": True, "NONE": None},
            "tokenizer": torch.arange(50, dtype=torch.uint8),
        }

    return make


@pytest.fixture
def saved(tmp_path, state):
    """A function that saves checkpoints of some iterations and returns the last path."""

    def save(*iterations):
        for iteration in iterations:
            checkpoint.save(checkpoint.checkpoint_path(tmp_path, iteration), state(iteration))
        return checkpoint.checkpoint_path(tmp_path, iterations[-1])

    return save

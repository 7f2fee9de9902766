"""The features of images are the same, bit for bit, however many processes compute them."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tests import small

from virtex.evaluation.features import FeatureSettings, pooled_features
from virtex.evaluation.preprocessing import Preprocessing
from virtex.training.precision import named_precision

IMAGES, CPU = 100, torch.device("cpu")  # two batches, so that of three processes one has none
SHARED = """
import sys
from pathlib import Path
import numpy as np
from tests.evaluation.test_processes import STEPS, paths_in, settings
from tests import small
from virtex.distributed.environment import read_environment
from virtex.distributed.world import SharedError, Timeouts, connect
from virtex.errors import RunError
from virtex.evaluation.feature_cache import cached_features
from virtex.evaluation.features import shared_features

directory, output = map(Path, sys.argv[1:])
counted = []
with connect(read_environment(), gpus=False, timeouts=Timeouts()) as (world, _):
    common = small.backbone(), paths_in(directory), STEPS
    features = shared_features(*common, settings(), counted.append, world=world)
    assert (features is not None) == world.main
    network, *data = common
    for computes in (True, False):
        calls = []
        hook = network.register_forward_hook(lambda *_: calls.append(1))
        again = cached_features(network, "hash", *data, settings(cache=output), world=world)
        hook.remove()
        assert world.any(bool(calls)) == computes
        assert again is None or np.array_equal(again.values, features.values)
    if world.main:
        assert sum(counted) == len(common[1])
        np.savez(output / f"{world.size}.npz", **vars(features))
    for failing in (0, world.size - 1):
        try:
            with world.shared_errors():
                if world.rank == failing:
                    raise RunError(f"of rank {failing}")
        except SharedError as error:
            assert (str(error), error.exit_status) == (f"of rank {failing}", 1)
        else:
            raise AssertionError("no error")
"""
STEPS = Preprocessing.resize_and_crop(small.SIDE, small.SIDE)


def settings(**changes):
    return FeatureSettings(named_precision("float32", CPU), CPU, **changes)


def paths_in(directory):
    return sorted(directory.glob("*.png"))


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_that_share_the_images_change_no_bit(tmp_path, processes):
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        pixels = rng.integers(0, 256, (small.SIDE, small.SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index:03}.png")
    for index in (3, 70, 99):
        (tmp_path / f"{index:03}.png").write_bytes(b"no image")
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    ended = subprocess.run(
        [sys.executable, *torchrun, script, tmp_path, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = pooled_features(small.backbone(), paths_in(tmp_path), STEPS, settings())
    finally:
        torch.set_num_threads(threads)
    with np.load(tmp_path / f"{processes}.npz") as found:
        for name, value in vars(alone).items():
            assert np.array_equal(found[name], value), name
    assert len(alone.bad) == 3

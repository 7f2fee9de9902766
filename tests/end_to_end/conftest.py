"""A small run that the tests share: 64 drawn scenes, a tiny RegNet at 64 pixels, 20 iterations."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny_network

from virtex.checkpoints import file as checkpoint
from virtex.cli import main

ITERATIONS = 20
EVERY = 7
"""Between checkpoints: no multiple of Lookahead's 5 steps, no divisor of the iterations."""

CONFIG = """
AMP: false
DATA:
  ROOT: {root}/scenes
  TOKENIZER_MODEL: {root}/vocabulary.model
  VOCAB_SIZE: 110
  IMAGE_CROP_SIZE: 64
MODEL:
  VISUAL: {{NAME: "torchvision::{network}", FEATURE_SIZE: {size}}}
  TEXTUAL: {{NAME: "transdec_postnorm::L1_H32_A2_F64", DROPOUT: 0.1}}
  DECODER: {{BEAM_SIZE: 2, MAX_DECODING_STEPS: 8}}
OPTIM:
  LOOKAHEAD: {{USE: true, STEPS: 5}}
  BATCH_SIZE: 8
  CNN_LR: 0.05
  LR: 0.01
  WARMUP_STEPS: 3
  NUM_ITERATIONS: {iterations}
"""

KNOWN = ("MODEL.VISUAL.NAME", "torchvision::resnet18", "MODEL.VISUAL.FEATURE_SIZE", "512")
"""In place of the tiny network, which an interpreter that tests do not fork has not registered."""


def config_text(root, iterations):
    """The configuration of a run on the scenes below `root`."""
    network, size = tiny_network.NAME, tiny_network.FEATURE_SIZE
    return CONFIG.format(root=root, iterations=iterations, network=network, size=size)


@dataclass(frozen=True)
class Scenes:
    """Input of a run, and the command lines that run on it."""

    root: Path
    config: Path = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "config", self.root / "run.yaml")

    def arguments(self, directory, *flags, override=()):
        """What follows `virtex pretrain`."""
        words = ["--config", self.config, "--serialization-dir", directory, "--log-every", 1]
        words += [*flags, "--config-override", *override]
        return [str(word) for word in words]

    def pretrain(self, directory, *flags, override=()):
        """The exit status of `virtex pretrain`, in this process."""
        return main(["pretrain", *self.arguments(directory, *flags, override=override)])

    def start(self, directory, *flags, program=("-m", "virtex", "pretrain"), override=()):
        """`virtex pretrain` as the leader of a process group of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        return subprocess.Popen(
            [sys.executable, *program, *self.arguments(directory, *flags, override=override)],
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def by_torchrun(scenes, directory, processes, *flags, override):
    """Train in `processes` CPU processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    program = (*torchrun, "-m", "virtex", "pretrain")
    process = scenes.start(directory, *flags, program=program, override=override)
    try:
        _, errors = process.communicate(timeout=240)
    finally:
        process.terminate()  # torchrun ends its processes, if they have not ended
        process.communicate()
    assert process.returncode == 0, errors


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    drawn = ["--train", "64", "--val", "10", "--size", "64", "--only", "coco"]
    assert main(["synthesize", str(root / "scenes"), *drawn]) == 0
    captions = root / "scenes" / "annotations" / "captions_train2017.json"
    vocabulary = ["--output", str(root / "vocabulary.model"), "--vocab-size", "110"]
    assert main(["tokenizer", str(captions), *vocabulary]) == 0
    scenes = Scenes(root)
    scenes.config.write_text(config_text(root, ITERATIONS), encoding="utf-8")
    return scenes


@pytest.fixture(scope="session")
def reference(scenes, tmp_path_factory):
    """The directory of a run from beginning to end; the tests do not write into it."""
    directory = tmp_path_factory.mktemp("reference") / "run"
    assert scenes.pretrain(directory, "--checkpoint-every", EVERY, "--cpu-workers", 2) == 0
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(tmp_path):
    """The directory for a run; checkpoints are large, so it is not kept."""
    directory = tmp_path / "run"
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def copy(reference, run):
    """A function that puts the reference's checkpoints of some iterations into `run`."""

    def copy(*iterations):
        run.mkdir()
        shutil.copy(reference / "config.yaml", run)
        shutil.copy(reference / "scalars.jsonl", run)
        for iteration in iterations:
            path = checkpoint.checkpoint_path(reference, iteration)
            shutil.copy(path, checkpoint.checkpoint_path(run, iteration))
        return run

    return copy


def scalars(directory, *prefixes):
    """The lines of scalars.jsonl with names of a prefix; without one, all but those of speed."""
    lines = (directory / "scalars.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    names = [next(name for name in line if name != "iteration") for line in found]
    return [
        line
        for line, name in zip(found, names, strict=True)
        if (name.startswith(prefixes) if prefixes else not name.startswith("speed/"))
    ]


def wait_for(condition, process, seconds=60):
    """Wait until `condition()`; fail if the process ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def logged(directory):
    """The last iteration of a run's scalars, 0 before any."""
    path = directory / "scalars.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return json.loads(lines[-1])["iteration"] if lines else 0


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Images of two brightnesses, 20 to train on and 8 to test, in a directory for each."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 4)):
        for name, level in (("dark", 100), ("light", 140)):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(level, 40, (64, 64, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root

"""Fine-tuning is a run like any other: interrupted or divided, it ends the same."""

import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tests.end_to_end.conftest import logged, scalars, wait_for
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint
from virtex.cli import main

ITERATIONS, EVERY = 10, 4
FLAGS = ("--checkpoint-every", EVERY, "--log-every", 1)
CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """24 training and 9 test images of three classes, of which some labels are unknown."""
    root = tmp_path_factory.mktemp("labelled")
    rows = ["image,split," + ",".join(CLASSES)]
    rng = np.random.default_rng(0)
    for index in range(33):
        coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
        pixels = cv2.resize(coarse, (48, 40), interpolation=cv2.INTER_CUBIC)
        Image.fromarray(pixels).save(root / f"{index}.png")
        labels = ["1" if index % 3 == k else "0" for k in range(3)]
        if index % 4 == 0:
            labels[(index + 1) % 3] = ""
        rows.append(f"{index}.png,{'train' if index < 24 else 'val'},{','.join(labels)}")
    path = root / "labels.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def words(table, run, *flags):
    override = ("OPTIM.NUM_ITERATIONS", ITERATIONS, "OPTIM.BATCH_SIZE", 8, "AMP", "false")
    override += ("SYNC_BN", "true")  # for two processes; one has none to synchronise with
    start = ("--checkpoint", "random", "--network", "torchvision::resnet18", "--image-size", 32)
    given = ("--data", table, *start, "--serialization-dir", run, *FLAGS, *flags)
    return [*map(str, ("evaluate", "finetune", *given, "--config-override", *override))]


def start(program):
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(
        [sys.executable, "-m", *program],
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def results(run):
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    """The directory of a run from beginning to end."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert main(words(table, directory)) == 0
    yield directory
    shutil.rmtree(directory)


def test_fine_tuning_that_was_killed_resumes_bit_for_bit(table, run, whole):
    process = start(["virtex", *words(table, run)])
    wait_for(lambda: logged(run) > EVERY, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert EVERY < logged(run) < ITERATIONS
    assert not (run / "results.json").exists()
    assert main(words(table, run, "--resume-from", "latest")) == 0
    ours, theirs = (
        checkpoint.load(checkpoint.checkpoint_path(path, ITERATIONS)) for path in (run, whole)
    )
    assert first_difference(ours, theirs) is None
    assert scalars(run) == scalars(whole)
    assert results(run) == results(whole)
    assert [record["metric"] for record in results(run)] == ["mAP", "AUROC"]


@pytest.mark.slow  # a larger case of what tests/training/test_processes.py checks
def test_two_processes_fine_tune_as_one(table, run, whole):
    """The numbers of known labels in their parts differ; sums are rounded in another order."""
    agent = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "virtex"]
    process = start([*agent, *words(table, run)])
    try:
        output, errors = process.communicate(timeout=240)
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0, errors
    assert output.count("finetune  mAP") == 1, output
    for one, other in zip(scalars(run), scalars(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    for one, other in zip(results(run), results(whole), strict=True):
        assert one["value"] == pytest.approx(other["value"])

"""What must not matter: the number of workers, how often one validates, how many processes."""

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tests.end_to_end.conftest import by_torchrun, scalars

from virtex.checkpoints import file as checkpoint

SHORT = ("OPTIM.NUM_ITERATIONS", "9")
"""Over the end of an epoch, which has 8 batches."""


@pytest.fixture(scope="module")
def alone(scenes, tmp_path_factory):
    """A short run without workers."""
    directory = tmp_path_factory.mktemp("alone") / "run"
    assert scenes.pretrain(directory, override=SHORT) == 0
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores
def test_the_number_of_workers_changes_nothing(scenes, alone, run, workers):
    assert scenes.pretrain(run, "--cpu-workers", workers, override=SHORT) == 0
    assert scalars(run) == scalars(alone)


def test_how_often_one_validates_changes_no_step(scenes, alone, run):
    assert scenes.pretrain(run, "--checkpoint-every", 2, "--keep-recent", 1, override=SHORT) == 0
    assert scalars(run, "train/") == scalars(alone, "train/")
    validations = scalars(run, "val/")
    assert [line["iteration"] for line in validations] == [2, 4, 6, 8, 9]
    assert validations[-1:] == scalars(alone, "val/")


def assert_same_curve(ours, theirs, tolerance):
    """The same lines, whose losses and norms differ by `tolerance` at most."""
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=tolerance)


def test_two_processes_train_as_one(scenes, alone, run):
    """With dropout, and batch norm over both: sums are rounded in another order, no more."""
    by_torchrun(scenes, run, 2, override=(*SHORT, "SYNC_BN", "true"))
    assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
        *("config.yaml", "log_rank0.txt", "log_rank1.txt", "scalars.jsonl", "checkpoint_9.pth"),
        ".lock",
    }
    assert "saved" not in (run / "log_rank1.txt").read_text(encoding="utf-8")
    weights = checkpoint.load(run / "checkpoint_9.pth")["model"]
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert_same_curve(scalars(run), scalars(alone), 1e-4)
    speed = scalars(run, "speed/")[-1]
    # Every parameter once, but those that the two heads share: float32.
    parameters = sum(value.nbytes for name, value in weights.items() if trained(name))
    assert speed["speed/exchanged_mb_per_step"] == pytest.approx(parameters / 1e6)
    assert 0 < speed["speed/exchange_fraction"] < 1


def trained(name):
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    shared = name.startswith("backward_textual.") and "transformer" not in name
    tied = name == "textual.output.weight"
    return not (name.endswith(buffers) or shared or tied)


@pytest.mark.parametrize("processes", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_other_numbers_of_processes(scenes, alone, run, processes):
    """2, then 1 or 4 processes and other workers: the same images in the same order and curve."""
    options = {"override": (*SHORT, "SYNC_BN", "true")}
    often = ("--checkpoint-every", 4)
    by_torchrun(scenes, run, 2, *often, **options)
    for iteration in (8, 9):
        checkpoint.checkpoint_path(run, iteration).unlink()
    going_on = (*often, "--resume-from", "latest")
    if processes == 1:
        assert scenes.pretrain(run, *going_on, "--cpu-workers", 1, **options) == 0
    else:
        by_torchrun(scenes, run, processes, *going_on, **options)
    assert_same_curve(scalars(run, "train/"), scalars(alone, "train/"), 1e-4)


@pytest.mark.cold
def test_help_imports_nothing_heavy():
    program = """
import sys
from virtex.cli import COMMANDS, main
for words in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):
    try:
        main(words)
    except SystemExit as ended:
        assert not ended.code, words
    heavy = {"torch", "torchvision", "numpy", "pydantic", "cv2", "PIL", "yaml", "sentencepiece"}
    assert not heavy & set(sys.modules), (words, heavy & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "--resume-from" in ended.stdout
    assert "synthesize" in ended.stdout


def write_table(root):
    """A table of grey images with 12 bits in 16, of which the first is broken."""
    rng = np.random.default_rng(0)
    root.mkdir()
    for split, count in (("train", 24), ("val", 6)):
        lines = ["image,caption"]
        for number in range(count):
            name = f"{split}_{number}.png"
            cv2.imwrite(str(root / name), rng.integers(0, 4096, (64, 64)).astype(np.uint16))
            lines.append(f"{name},a grey image of noise to the left of number {number}")
        (root / f"{split}.csv").write_text("\n".join(lines))
    (root / "train_0.png").write_bytes(b"not an image")


def test_two_processes_train_as_one_on_a_mixture_with_a_range_that_is_chosen(scenes, run, tmp_path):
    write_table(tmp_path / "table")
    coco, table = scenes.root / "scenes", tmp_path / "table"
    sources = [
        {"FORMAT": "coco", "ROOT": str(coco), "WEIGHT": 3.0},
        {"FORMAT": "table", "ROOT": str(table)},
    ]
    override = ("DATA.ROOT", "datasets/coco", "DATA.SOURCES", json.dumps(sources))
    override = (*override, "DATA.ON_BAD_IMAGE", "skip", "SYNC_BN", "true", *SHORT)
    assert scenes.pretrain(tmp_path / "alone", override=override) == 0
    by_torchrun(scenes, run, 2, override=override)
    assert_same_curve(scalars(run), scalars(tmp_path / "alone"), 1e-4)
    for directory in (run, tmp_path / "alone"):
        saved = checkpoint.load(directory / "checkpoint_9.pth")
        assert saved["config"]["DATA"]["PIXEL_RANGE"] == [0.0, 4095.0]
        assert "train_0.png" in (directory / "log_rank0.txt").read_text(encoding="utf-8")

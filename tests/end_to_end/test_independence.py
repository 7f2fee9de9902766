"""What must not matter: the number of workers, how often one validates, how many processes."""

import shutil
import subprocess
import sys

import pytest
from tests.end_to_end.conftest import scalars

from virtex.runtime import checkpoint

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


def test_two_processes_train_together(scenes, alone, run):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = scenes.start(run, program=(*torchrun, "-m", "virtex", "pretrain"), override=SHORT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.terminate()  # torchrun ends its processes, if they have not ended
        process.communicate()
    assert process.returncode == 0, errors
    assert {path.name for path in run.iterdir() if "tfevents" not in path.name} == {
        *("config.yaml", "log_rank0.txt", "log_rank1.txt", "scalars.jsonl", "checkpoint_9.pth")
    }
    assert "saved" not in (run / "log_rank1.txt").read_text(encoding="utf-8")
    weights = checkpoint.load(run / "checkpoint_9.pth")["model"]
    assert all(bool(value.isfinite().all()) for value in weights.values())
    ours, theirs = scalars(run, "train/"), scalars(alone, "train/")
    assert [line["iteration"] for line in ours] == [line["iteration"] for line in theirs]
    # The same images and weights; dropout and batch-norm's statistics differ by process.
    assert ours[0]["train/loss"] == pytest.approx(theirs[0]["train/loss"], rel=0.05)


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

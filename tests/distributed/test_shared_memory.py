"""A small or full /dev/shm: one message, whatever fails, and no hang."""

import errno
import subprocess
import sys

import pytest
from tests.end_to_end.conftest import KNOWN, config_text

from virtex.cli import main
from virtex.distributed.shared_memory import translate_shared_memory_errors
from virtex.errors import RunError

FULL = """
import sys
import torch
from virtex.data.loader import training_batches
from virtex.distributed.shared_memory import translate_shared_memory_errors

class Examples:
    shard_sizes = torch.tensor([4000]).numpy()
    def __len__(self):
        return 4000
    def examples(self, keys):
        return [torch.zeros(100_000, dtype=torch.uint8) for _ in keys], []

def collate(rows):
    return {"image": torch.stack(rows)}

options = {"batch_size": 8, "workers": int(sys.argv[1]), "seed": 0}
with translate_shared_memory_errors(10**7):
    batches = training_batches(Examples(), collate, **options)
    kept = [next(batches)]
    with open("/dev/shm/filler", "wb", buffering=0) as file:
        try:
            while True:  # the workers may take some of it meanwhile
                file.write(bytes(4096))
        except OSError:
            pass
    while True:
        kept.append(next(batches))
"""


def in_small_memory(megabytes, *command):
    """The ended process of a command that has this much shared memory."""
    mount = f'mount -t tmpfs -o size={megabytes}m tmpfs /dev/shm && exec "$@"'
    words = ["unshare", "--mount", "sh", "-c", mount, "sh"]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small /dev/shm")
    command = [*words, sys.executable, *map(str, command)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_that_fills_up_between_batches_ends_the_run_with_its_name(workers):
    ended = in_small_memory(16, "-c", FULL, workers)
    assert ended.returncode == 1
    assert "virtex.errors.RunError: /dev/shm (shared memory) has 0." in ended.stderr
    assert "--shm-size" in ended.stderr
    assert "_feed" not in ended.stderr


def test_too_little_for_the_batches_is_refused_before_the_data_are_read(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(config_text(tmp_path, 20))
    words = ["pretrain", "--config", config, "--serialization-dir", tmp_path / "run"]
    words += ["--cpu-workers", 6, "--config-override", *KNOWN]
    ended = in_small_memory(1, "-m", "virtex", *words)
    assert ended.returncode == 2
    # Six workers with two batches each and one in use, of both splits: 26 of 8 x 3 x 64 x 64 bytes.
    assert (
        "has 1.0 MB free, 1.5 MB less than needed: the loader workers of this machine"
        in ended.stderr
    )
    assert "hold up to 2.6 MB of batches" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_too_little_for_the_annotations_has_the_same_message(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"{split}.csv").write_text("image,caption\n" + f"a.jpg,{'red ' * 99}\n" * 5000)
    vocabulary = ["--output", str(tmp_path / "vocabulary.model"), "--vocab-size", "10"]
    assert main(["tokenizer", str(tmp_path / "val.csv"), *vocabulary]) == 0
    config = tmp_path / "run.yaml"
    text = config_text(tmp_path, 20).replace("110", "10")
    config.write_text(text.replace(f"{tmp_path}/scenes", f"{tmp_path}\n  FORMAT: table"))
    words = ["pretrain", "--config", config, "--serialization-dir", tmp_path / "run"]
    ended = in_small_memory(1, "-m", "virtex", *words, "--config-override", *KNOWN)
    assert ended.returncode == 1
    assert "/dev/shm (shared memory) has" in ended.stderr
    assert "Traceback" not in ended.stderr


KILLED = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
        RuntimeError(KILLED),
        RunError(f"loading the data failed: {KILLED}"),
    ],
)
def test_each_failure_has_the_same_message(error):
    with pytest.raises(RunError, match=r"hold up to 3\.0 MB of batches"):  # noqa: SIM117
        with translate_shared_memory_errors(3_000_000):
            raise error


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), OSError(errno.ENOSPC, "No space", "scalars.jsonl")]
)
def test_other_errors_are_raised_unchanged(error):
    with pytest.raises(type(error)) as raised, translate_shared_memory_errors(1):
        raise error
    assert raised.value is error

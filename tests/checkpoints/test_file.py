import os
import pickle
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.file import DamagedCheckpoint
from virtex.errors import RunError, UserError

# A process that has torch begins children that save without end, and kills them after 0 … 30 ms
# of a save; 8 MB take about that long.
KILL_SAVES = """
import os, random, signal, sys, time
from itertools import count
from pathlib import Path

import torch

from virtex.checkpoints import file as checkpoint

def save_without_end(directory):
    for iteration in count(1):
        state = {"weight": torch.full((2_000_000,), float(iteration)), "iteration": iteration}
        checkpoint.save(checkpoint.checkpoint_path(directory, iteration), state)
        checkpoint.remove_old(directory, checkpoint.Retention(2))

for trial in range(8):
    directory = Path(sys.argv[1]) / str(trial)
    directory.mkdir()
    child = os.fork()
    if child == 0:
        save_without_end(directory)
    while not checkpoint.checkpoints(directory) or not list(directory.glob(".*.partial-*")):
        time.sleep(0.0005)
    time.sleep(random.Random(trial).uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_what_is_loaded_equals_what_was_saved(saved, state):
    assert first_difference(checkpoint.load(saved(7)), state(7)) is None


def test_a_killed_save_leaves_only_complete_checkpoints(tmp_path):
    subprocess.run([sys.executable, "-c", KILL_SAVES, tmp_path], check=True, timeout=120)
    inside = 0
    for directory in tmp_path.iterdir():
        inside += bool(list(directory.glob(".checkpoint_*.partial-*")))
        paths = checkpoint.checkpoints(directory)
        iterations = [checkpoint.checkpoint_iteration(path) for path in paths]
        assert iterations == list(range(iterations[0], iterations[0] + len(paths)))
        for path, iteration in zip(paths, iterations, strict=True):
            loaded = checkpoint.load(path)
            assert loaded["iteration"] == iteration
            assert bool((loaded["weight"] == iteration).all())
        checkpoint.remove_partial_files(directory)
        assert sorted(directory.iterdir()) == sorted(paths)
    assert inside > 0, "no child was killed inside a save, so nothing was shown"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_cut_at_any_length_is_damaged(saved, data):
    path = saved(7)
    length = data.draw(st.integers(0, path.stat().st_size - 1))
    os.truncate(path, length)
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint_7\.pth"):
        checkpoint.load(path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_flipped_bit_is_damage_unless_it_means_nothing(saved, state, data):
    path = saved(7)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        loaded = checkpoint.load(path)
    except DamagedCheckpoint:
        return
    # Padding and unused fields of the archive.
    assert first_difference(loaded, state(7)) is None


def test_a_flipped_bit_of_a_weight_is_damage(saved, state):
    path = saved(7)
    content = path.read_bytes()
    weights = state(7)["model"]["weight"].numpy().tobytes()
    place = content.index(weights) + len(weights) // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(DamagedCheckpoint, match="damaged"):
        checkpoint.load(path)


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.write_text, (self.victim, "owned")


@pytest.mark.parametrize(
    "save", [torch.save, lambda o, path: path.write_bytes(pickle.dumps(o, protocol=2))]
)
def test_a_file_that_would_run_code_is_refused_unopened(tmp_path, save):
    victim = tmp_path / "victim"
    path = tmp_path / "checkpoint_7.pth"
    save({"model": {}, "iteration": Malicious(victim)}, path)
    with pytest.raises(DamagedCheckpoint, match="could run code"):
        checkpoint.load(path)
    assert not victim.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint\n", b"PK\x03\x04", b"\x80\x02}"])
def test_other_files_are_damaged_checkpoints(tmp_path, content):
    path = tmp_path / "checkpoint_7.pth"
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint_7\.pth"):
        checkpoint.load(path)


def test_a_tensor_is_not_a_checkpoint(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    with pytest.raises(DamagedCheckpoint, match="holds a Tensor"):
        checkpoint.load(tmp_path / "tensor.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*nothing\.pth"):
        checkpoint.load(tmp_path / "nothing.pth")


def test_what_could_not_be_loaded_again_is_not_saved(tmp_path, state):
    with pytest.raises(AssertionError, match=r"'torch'.*TorchVersion"):
        checkpoint.save(
            tmp_path / "checkpoint_7.pth", {**state(7), "versions": {"torch": torch.__version__}}
        )
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_else(tmp_path, saved, state):
    path = saved(6, 7)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A write past this many bytes of a file fails, as it does on a full disk.
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, limits[1]))
        for iteration in (7, 8):
            with pytest.raises(RunError, match=r"could not save .*intact"):
                checkpoint.save(checkpoint.checkpoint_path(tmp_path, iteration), state(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_directory_that_is_gone_is_an_error_of_the_run(tmp_path, state):
    with pytest.raises(RunError, match="could not save"):
        checkpoint.save(tmp_path / "gone" / "checkpoint_1.pth", state(1))


def test_checkpoints_are_in_the_order_of_iterations_not_of_names(tmp_path, saved):
    saved(7, 10, 9)
    (tmp_path / "checkpoint_last.pth").touch()
    (tmp_path / ".checkpoint_11.pth.partial").touch()
    names = [path.name for path in checkpoint.checkpoints(tmp_path)]
    assert names == ["checkpoint_7.pth", "checkpoint_9.pth", "checkpoint_10.pth"]


def test_the_newest_readable_one_skips_damaged_ones(tmp_path, saved):
    newest = saved(7, 9, 10)
    os.truncate(newest, 1000)
    path, found, damaged = checkpoint.newest_readable(tmp_path)
    assert (path.name, found["iteration"], damaged) == ("checkpoint_9.pth", 9, [newest])
    path, found, damaged = checkpoint.newest_readable(tmp_path, before=9)
    assert (path.name, found["iteration"], damaged) == ("checkpoint_7.pth", 7, [])
    assert checkpoint.newest_readable(tmp_path, before=7) is None


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_only_the_newest_are_kept(tmp_path, saved, keep):
    saved(7, 9, 10)
    checkpoint.remove_old(tmp_path, checkpoint.Retention(keep, untouched=9))
    kept = [checkpoint.checkpoint_iteration(path) for path in checkpoint.checkpoints(tmp_path)]
    assert kept == [7, 9, 10][-keep:]


def test_milestones_and_what_earlier_versions_wrote_are_kept_by_default(tmp_path):
    """Also one that a stop saved between two others, and where no interval divides a milestone."""
    iterations = [*range(4, 61, 4), 27]
    for iteration in iterations:
        checkpoint.checkpoint_path(tmp_path, iteration).touch()
    checkpoint.remove_old(tmp_path, checkpoint.Retention(3, 25, interval=4, untouched=8))
    kept = [checkpoint.checkpoint_iteration(path) for path in checkpoint.checkpoints(tmp_path)]
    assert kept == [4, 8, 27, 28, 52, 56, 60]


def test_all_are_kept_on_request(tmp_path):
    for iteration in range(9):
        checkpoint.checkpoint_path(tmp_path, iteration).touch()
    checkpoint.remove_old(tmp_path, checkpoint.Retention(None))
    assert len(checkpoint.checkpoints(tmp_path)) == 9

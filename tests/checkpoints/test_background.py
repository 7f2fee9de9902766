import collections
import os
import subprocess
import sys
import time

import pytest
import torch
from tests.same import first_difference

from virtex.checkpoints import file as checkpoint
from virtex.checkpoints.background import BackgroundSaver, snapshot
from virtex.errors import RunError

# Ends by an error in the main thread as soon as the write has begun; 80 MB take longer than that.
ENDS_WHILE_SAVING = """
import sys
from pathlib import Path
import torch
from virtex.checkpoints.background import BackgroundSaver

BackgroundSaver().save(Path(sys.argv[1]), {"weight": torch.full((20_000_000,), 0.5)})
raise SystemExit("the training failed")
"""


@pytest.fixture
def saver():
    return BackgroundSaver()


def wait_for(saver):
    """The checkpoints that the saver finishes within a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        finished = saver.finished()
        if finished:
            return finished
        time.sleep(0.001)
    raise AssertionError("nothing was saved")


@torch.no_grad()
def spoil(value):
    """Change all tensors in place, as steps of the training do."""
    if isinstance(value, torch.Tensor):
        value.add_(1) if value.dtype != torch.bool else value.logical_not_()
    elif isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            spoil(inner)


def test_a_snapshot_equals_the_state_and_does_not_follow_later_steps(state):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model.to(memory_format=torch.channels_last)

    def whole():
        nested = [torch.ones(2), (torch.zeros(3, dtype=torch.bool), {"deep": torch.arange(4)})]
        return {**state(3), "nested": nested, "network": model.state_dict()}

    given = whole()
    taken = snapshot(given)
    assert first_difference(taken, whole()) is None
    spoil(given)
    given["optimizer"]["slow"].append(torch.ones(1))
    given["optimizer"]["counter"] += 1
    assert first_difference(taken, {**whole(), "network": taken["network"]}) is None
    for name, tensor in taken["network"].items():
        difference = given["network"][name] - tensor
        assert torch.allclose(difference.float(), torch.ones(()))
        assert tensor.stride() == given["network"][name].stride()
        assert not tensor.requires_grad


def test_a_snapshot_holds_lists_tuples_and_ordered_mappings():
    given = collections.OrderedDict(b=torch.ones(1), a=(1, [None, "x"], {"y": 2.5}))
    taken = snapshot({"state": given})["state"]
    assert list(taken) == ["b", "a"]
    assert taken["a"] == (1, [None, "x"], {"y": 2.5})


def test_tied_tensors_are_one_in_the_copy_and_in_the_file(tmp_path):
    embedding = torch.nn.Embedding(500, 100)
    output = torch.nn.Linear(100, 500, bias=False)
    output.weight = embedding.weight
    model = torch.nn.ModuleDict({"embedding": embedding, "output": output})
    taken = snapshot({"model": model.state_dict()})
    assert taken["model"]["embedding.weight"] is taken["model"]["output.weight"]
    path = tmp_path / "checkpoint_1.pth"
    checkpoint.save(path, taken)
    once = 500 * 100 * 4
    assert once <= path.stat().st_size < 1.5 * once
    loaded = checkpoint.load(path)["model"]
    assert loaded["embedding.weight"].data_ptr() == loaded["output.weight"].data_ptr()


def test_tensors_of_equal_values_are_not_tied():
    taken = snapshot({"one": torch.ones(3), "other": torch.ones(3)})
    taken["one"].zero_()
    assert taken["other"].tolist() == [1, 1, 1]


def test_views_of_one_storage_keep_their_own_shapes():
    whole = torch.arange(6.0)
    given = {"row": whole[:3], "all": whole, "folded": whole.view(2, 3), "end": whole[3:]}
    assert first_difference(snapshot(given), {name: t.clone() for name, t in given.items()}) is None


def test_a_part_of_a_large_tensor_is_saved_without_the_rest(tmp_path):
    path = tmp_path / "checkpoint_1.pth"
    checkpoint.save(path, snapshot({"part": torch.zeros(1_000_000)[:10]}))
    assert path.stat().st_size < 10_000


def test_the_file_is_the_state_at_the_call_whatever_training_does_next(tmp_path, saver):
    generator = torch.Generator().manual_seed(0)
    given = {"weights": [torch.randn(200_000, generator=generator) for _ in range(20)]}
    expected = {"weights": [tensor.clone() for tensor in given["weights"]]}
    path = tmp_path / "checkpoint_1.pth"
    saver.save(path, given)
    steps = 0
    while not (finished := saver.finished()):
        spoil(given)
        steps += 1
    assert steps > 0
    assert finished == [path]
    assert first_difference(checkpoint.load(path), expected) is None
    assert saver.finished() == []


def test_saves_finish_in_order_and_are_reported_once(tmp_path, saver, state):
    paths = [checkpoint.checkpoint_path(tmp_path, iteration) for iteration in (1, 2, 3)]
    reported = []
    for iteration, path in enumerate(paths, start=1):
        saver.save(path, state(iteration))
        reported += saver.finished()
    saver.finish()
    reported += saver.finished()
    assert reported == paths
    assert saver.finished() == []
    for iteration, path in enumerate(paths, start=1):
        assert first_difference(checkpoint.load(path), state(iteration)) is None


def call_until_error(saver, name):
    """Call a method of the saver until the save that is under way has failed."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        getattr(saver, name)()
        time.sleep(0.001)


@pytest.mark.parametrize("name", ["finished", "finish"])
def test_a_save_that_fails_is_an_error_of_the_next_call_once(tmp_path, saver, state, name):
    before = checkpoint.checkpoint_path(tmp_path, 1)
    saver.save(before, state(1))
    assert wait_for(saver) == [before]
    content = before.read_bytes()
    saver.save(tmp_path / "gone" / "checkpoint_2.pth", state(2))
    with pytest.raises(RunError, match=r"could not save .*intact"):
        call_until_error(saver, name)
    assert before.read_bytes() == content
    assert saver.finished() == []
    after = checkpoint.checkpoint_path(tmp_path, 3)
    saver.save(after, state(3))
    assert wait_for(saver) == [after]


def test_the_next_save_reports_one_that_failed(tmp_path, saver, state):
    saver.save(tmp_path / "gone" / "checkpoint_1.pth", state(1))
    with pytest.raises(RunError, match=r"gone/checkpoint_1\.pth"):
        saver.save(checkpoint.checkpoint_path(tmp_path, 2), state(2))


def test_an_assertion_in_the_thread_is_not_lost(tmp_path, saver):
    saver.save(tmp_path / "checkpoint_1.pth", {"version": torch.__version__})
    with pytest.raises(AssertionError, match="could be saved but not loaded"):
        saver.finish()


def test_a_disk_that_alters_data_is_noticed(tmp_path, saver, state, monkeypatch):
    """The fault is put where the system says that the file is on the disk."""
    path = checkpoint.checkpoint_path(tmp_path, 1)
    checkpoint.save(path, state(1))
    content = path.read_bytes()
    other = state(2)
    weights = other["model"]["weight"].numpy().tobytes()
    flush = os.fsync

    def alter(descriptor):
        flush(descriptor)
        partial = next(tmp_path.glob(".*.partial-*"))
        written = bytearray(partial.read_bytes())
        written[written.index(weights) + 100] ^= 4
        partial.write_bytes(written)

    monkeypatch.setattr(os, "fsync", alter)
    saver.save(path, other)
    with pytest.raises(RunError, match="wrong checksum"):
        saver.finish()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_that_fails_during_a_save_leaves_the_complete_file(tmp_path):
    path = tmp_path / "checkpoint_1.pth"
    ended = subprocess.run(
        [sys.executable, "-c", ENDS_WHILE_SAVING, path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr.strip()) == (1, "the training failed")
    assert bool((checkpoint.load(path)["weight"] == 0.5).all())

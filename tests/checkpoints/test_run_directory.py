import os

import pytest
import torch

from virtex.checkpoints import run_directory as directory
from virtex.checkpoints.file import DamagedCheckpoint
from virtex.errors import UserError


def test_a_new_run_starts_in_a_directory_without_a_run(tmp_path):
    directory.check_free(tmp_path)
    directory.check_free(tmp_path / "deep" / "down")


@pytest.mark.parametrize("trace", ["config.yaml", "checkpoint_7.pth"])
def test_a_new_run_does_not_overwrite_another(tmp_path, trace):
    (tmp_path / trace).touch()
    with pytest.raises(UserError, match=r"already holds a run.*--resume-from latest"):
        directory.check_free(tmp_path)


def test_a_run_that_saved_nothing_is_named_as_such(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UserError, match=r"saved no checkpoint.*starts at iteration 1"):
        directory.check_free(tmp_path)
    (tmp_path / "checkpoint_7.pth").touch()
    with pytest.raises(UserError, match="already holds a run; continue it with"):
        directory.check_free(tmp_path)


def test_checkpoints_of_a_version_that_kept_all_are_left_alone(tmp_path, saved):
    saved(7)
    assert directory.find_start(tmp_path, "latest").untouched == 7


def test_a_file_is_not_a_directory(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="is a file"):
        directory.check_free(tmp_path / "run")


def test_latest_is_the_newest_intact_checkpoint(tmp_path, saved):
    saved(7, 9)
    start = directory.find_start(tmp_path, "latest")
    assert (start.iteration, start.state["iteration"]) == (9, 9)
    os.truncate(tmp_path / "checkpoint_9.pth", 1000)
    start = directory.find_start(tmp_path, "latest")
    assert start.iteration == 7
    assert "checkpoint_9.pth is damaged" in start.notes[0]


def test_latest_of_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    (tmp_path / "config.yaml").touch()
    start = directory.find_start(tmp_path, "latest")
    assert (start.iteration, start.state) == (0, None)


def test_latest_without_a_run_is_an_error(tmp_path):
    with pytest.raises(UserError, match="contains no run"):
        directory.find_start(tmp_path, "latest")


def test_latest_does_not_start_again_over_damaged_checkpoints(tmp_path, saved):
    os.truncate(saved(7), 1000)
    with pytest.raises(DamagedCheckpoint, match=r"damaged: checkpoint_7\.pth"):
        directory.find_start(tmp_path, "latest")


def test_a_named_file_that_is_damaged_offers_the_one_before(tmp_path, saved):
    path = saved(7, 9)
    os.truncate(path, 1000)
    with pytest.raises(DamagedCheckpoint, match=r"--resume-from .*checkpoint_7\.pth"):
        directory.find_start(tmp_path, str(path))
    (tmp_path / "checkpoint_7.pth").unlink()
    with pytest.raises(DamagedCheckpoint, match="no older checkpoint"):
        directory.find_start(tmp_path, str(path))


def test_a_named_file_may_lie_elsewhere(tmp_path, saved):
    path = saved(7)
    assert directory.find_start(tmp_path / "other", str(path)).iteration == 7


def test_an_older_file_does_not_overwrite_newer_ones(tmp_path, saved):
    saved(7, 9)
    with pytest.raises(UserError, match=r"already holds checkpoint_9\.pth"):
        directory.find_start(tmp_path, str(tmp_path / "checkpoint_7.pth"))


@pytest.mark.parametrize("missing", ["optimizer", "iteration"])
def test_a_run_cannot_resume_from_weights_alone(tmp_path, state, missing):
    path = tmp_path / "weights.pth"
    torch.save({key: value for key, value in state(7).items() if key != missing}, path)
    with pytest.raises(UserError, match="--init-from"):
        directory.find_start(tmp_path, str(path))

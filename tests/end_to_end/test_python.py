"""A run from Python is that of the command."""

import pytest
from tests.end_to_end.conftest import scalars

import virtex
from virtex.errors import UserError


def test_a_run_from_python_is_that_of_the_command(scenes, run, tmp_path):
    settings = {"OPTIM.NUM_ITERATIONS": 6}
    options = {"checkpoint_every": 3, "log_every": 1}
    first = virtex.pretrain(scenes.config, tmp_path / "python", settings=settings, **options)
    assert first == tmp_path / "python" / "checkpoint_6.pth"
    words = ("--checkpoint-every", 3)
    assert scenes.pretrain(run, *words, override=("OPTIM.NUM_ITERATIONS", 6)) == 0
    assert scalars(tmp_path / "python", "train/", "val/") == scalars(run, "train/", "val/")
    with pytest.raises(UserError, match="resume"):
        virtex.pretrain(scenes.config, tmp_path / "python", settings=settings, **options)
    again = virtex.pretrain(
        scenes.config, tmp_path / "python", settings={"OPTIM.NUM_ITERATIONS": 7}, resume=True
    )
    assert again == tmp_path / "python" / "checkpoint_7.pth"


def test_mistakes_are_errors_before_anything_starts(scenes, tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'OPTIM.BATCH_SIZE'"):
        virtex.pretrain(scenes.config, tmp_path / "python", settings={"OPTIM.BATCHSIZE": 4})
    with pytest.raises(UserError, match="--init-from"):
        virtex.pretrain(scenes.config, tmp_path / "python", init_parts="backbone")
    assert not (tmp_path / "python").exists()

import json
import os
import signal
import time
from contextlib import closing

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from virtex.training.logger import RunLogger


@pytest.fixture
def write(tmp_path):
    """A function that logs the iterations `first` … `last`."""

    def write(first, last, rank=0):
        with closing(RunLogger(tmp_path, rank=rank, first=first)) as logger:
            for iteration in range(first, last + 1):
                logger.log_scalars(iteration, {"train/loss": iteration / 7})
                logger.info(f"iteration {iteration}")

    return write


def lines(directory):
    text = (directory / "scalars.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_numbers_are_written_in_full(tmp_path, write):
    write(1, 3)
    assert lines(tmp_path) == [{"iteration": i, "train/loss": i / 7} for i in (1, 2, 3)]


def test_resuming_drops_only_scalars_that_are_logged_again(tmp_path, write):
    write(1, 9)
    write(6, 7)
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("cut", ["{", '{"iteration": 4, "train/lo', '{"iteration": 4}'])
def test_a_last_line_that_was_cut_is_dropped(tmp_path, write, cut):
    write(1, 3)
    with (tmp_path / "scalars.jsonl").open("a", encoding="utf-8") as file:
        file.write(cut)
    write(4, 4)
    assert [line["iteration"] for line in lines(tmp_path)] == [1, 2, 3, 4]


def test_tensorboard_shows_each_iteration_once(tmp_path, write):
    write(1, 9)
    time.sleep(1.1)  # event files are read in the order of the seconds in which they begin
    write(6, 8)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_log_keeps_all_sessions(tmp_path, write, capsys):
    write(1, 2)
    write(2, 2)
    log = (tmp_path / "log_rank0.txt").read_text(encoding="utf-8")
    assert [line.rsplit(" ", 1)[1] for line in log.splitlines()] == ["1", "2", "2"]
    assert capsys.readouterr().out.count("iteration 2") == 2


def test_other_processes_write_their_log_alone(tmp_path, write, capsys):
    write(1, 2, rank=1)
    assert [path.name for path in tmp_path.iterdir()] == ["log_rank1.txt"]
    assert "iteration 2" in (tmp_path / "log_rank1.txt").read_text(encoding="utf-8")
    assert not capsys.readouterr().out


def test_an_error_goes_to_the_log_alone(tmp_path, capsys):
    with closing(RunLogger(tmp_path, rank=0, first=1)) as logger:
        logger.log_error("a bad image")
    assert "ERROR a bad image" in (tmp_path / "log_rank0.txt").read_text(encoding="utf-8")
    assert capsys.readouterr() == ("", "")


def test_images_and_texts_are_logged(tmp_path):
    with closing(RunLogger(tmp_path, rank=0, first=1)) as logger:
        logger.log_image(5, "val/captions", np.zeros((8, 6, 3), np.uint8))
        logger.log_text(5, "val/captions", "a red circle")
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    (picture,) = board.Images("val/captions")
    assert (picture.step, picture.height, picture.width) == (5, 8, 6)
    (text,) = board.Tensors("val/captions/text_summary")
    assert text.tensor_proto.string_val == [b"a red circle"]


@pytest.mark.parametrize("call", ["log_scalars", "log_image", "log_text", "close"])
def test_an_interrupt_waits_for_tensorboard(tmp_path, monkeypatch, call):
    """Else its thread might not end, and the run would hang where it closes its logs."""
    done = []

    def interrupted(original):
        def method(*arguments, **keywords):
            os.kill(os.getpid(), signal.SIGINT)
            original(*arguments, **keywords)
            done.append(original.__name__)

        return method

    logger = RunLogger(tmp_path, rank=0, first=1)
    for name in ("add_scalar", "add_image", "add_text", "close"):
        monkeypatch.setattr(logger._board, name, interrupted(getattr(logger._board, name)))
    arguments = {
        "log_scalars": (1, {"a": 1.0, "b": 2.0}),
        "log_image": (1, "sheet", np.zeros((4, 4, 3), np.uint8)),
        "log_text": (1, "sheet", "text"),
        "close": (),
    }[call]
    with pytest.raises(KeyboardInterrupt):
        getattr(logger, call)(*arguments)
    assert (
        done
        == {
            "log_scalars": ["add_scalar"] * 2,
            "log_image": ["add_image"],
            "log_text": ["add_text"],
            "close": ["close"],
        }[call]
    )
    monkeypatch.undo()
    logger.close()

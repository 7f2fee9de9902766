import os
import pty
import re
import select
import sys
from pathlib import Path

import pytest

from virtex.distributed.debugging import debugger, this_terminal
from virtex.errors import UserError


@pytest.fixture
def terminal():
    """What a person's side reads and writes, and the terminal's name."""
    ours, theirs = pty.openpty()
    yield ours, Path(os.ttyname(theirs))
    os.close(ours)
    os.close(theirs)


def test_a_breakpoint_in_another_process_does_nothing(terminal):
    before = sys.breakpointhook
    with debugger(terminal[1], here=False):
        breakpoint()
        assert sys.breakpointhook is not before
    assert sys.breakpointhook is before


def test_an_error_in_another_process_opens_no_debugger(terminal):
    with pytest.raises(ZeroDivisionError), debugger(terminal[1], here=False):
        raise ZeroDivisionError


def test_an_error_here_opens_the_debugger_in_its_frame_and_is_raised(terminal):
    ours, name = terminal
    before = sys.breakpointhook

    def fail(secret):
        raise ValueError(f"with {secret}")

    os.write(ours, b"p secret + 1\nq\n")
    with pytest.raises(ValueError, match="with 41"), debugger(name, here=True):
        fail(41)
    shown = ""
    # The terminal's echo of what was typed comes before the prompt or behind it.
    answered = re.compile(r"(\(Pdb\) |\n)42\r?\n")
    while not answered.search(shown) and select.select([ours], [], [], 5)[0]:
        shown += os.read(ours, 65536).decode()
    assert "ValueError: with 41" in shown
    assert answered.search(shown)
    assert sys.breakpointhook is before


def test_a_file_is_not_a_terminal(monkeypatch, tmp_path):
    (tmp_path / "input").touch()
    with (tmp_path / "input").open() as file:
        monkeypatch.setattr(sys, "__stdin__", file)
        with pytest.raises(UserError, match="--debug-rank needs a terminal"):
            this_terminal()


def test_the_terminal_of_the_standard_input_is_named(monkeypatch, terminal):
    with terminal[1].open() as file:
        monkeypatch.setattr(sys, "__stdin__", file)
        assert this_terminal() == terminal[1]

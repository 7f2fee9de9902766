"""Laws of the progress that long commands report."""

import io
import os
import sys

import pytest

from virtex.cli import main
from virtex.commands.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """The lines that a person sees in the end."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for text in line.split("\r"):
                shown = text + shown[len(text) :]
            lines.append(shown.rstrip())
        return lines


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_pipe_gets_a_plain_line_every_ten_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("train", 2000, "images", stream=stream, clock=clock) as progress:
        for _ in range(30):
            clock.seconds += 1
            progress.advance(50)
    assert stream.getvalue() == (
        "train: 500 of 2,000 images, 50.0 images/s, 0:00:30 remaining\n"
        "train: 1,000 of 2,000 images, 50.0 images/s, 0:00:20 remaining\n"
        "train: 1,500 of 2,000 images, 50.0 images/s, 0:00:10 remaining\n"
    )


def test_other_work_takes_the_line_for_its_time(clock: Clock) -> None:
    stream = Terminal()
    with Progress("features", 1000, "images", stream=stream, clock=clock) as progress:
        clock.seconds += 10
        progress.advance(100)
        assert stream.screen() == [
            "features: 100 of 1,000 images, 10.0 images/s, 0:01:30 remaining"
        ]
        with progress.interrupted("fitting", 10, "fits") as advance:
            assert stream.screen() == [""]
            clock.seconds += 80
            advance(2)
            assert stream.screen() == ["fitting: 2 of 10 fits, 0.03 fits/s, 0:05:20 remaining"]
        clock.seconds += 10
        progress.advance(100)
        assert stream.screen() == [
            "features: 200 of 1,000 images, 10.0 images/s, 0:01:20 remaining"
        ]


def test_a_terminal_gets_one_live_line_that_is_erased_at_the_end(clock: Clock) -> None:
    stream = Terminal()
    with Progress("train", 1000, "images", stream=stream, clock=clock) as progress:
        for done in (600, 399):
            clock.seconds += 1
            progress.advance(done)
        assert stream.screen() == ["train: 999 of 1,000 images, 499.5 images/s, 0:00:00 remaining"]
        progress.note("skipped a.jpg: it is empty")
        clock.seconds += 1
        progress.advance()
    assert stream.screen() == ["skipped a.jpg: it is empty", ""]


def interrupt(clock: Clock, progress: Progress) -> None:
    clock.seconds += 1
    progress.advance()
    raise KeyboardInterrupt


def test_an_error_leaves_no_live_line_behind(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress("train", 10, "images", stream=stream, clock=clock)
    with pytest.raises(KeyboardInterrupt), progress:
        interrupt(clock, progress)
    assert stream.screen() == [""]


def test_a_live_line_fits_the_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    progress = Progress("a" * 99, 10, "images", stream=stream, clock=clock)
    clock.seconds += 1
    progress.advance()
    assert stream.screen() == ["a" * 29]


def test_quiet_keeps_only_the_notes(clock: Clock) -> None:
    stream = Terminal()
    with Progress("train", 10, "images", quiet=True, stream=stream, clock=clock) as progress:
        clock.seconds += 99
        progress.advance()
        progress.note("skipped a.jpg")
    assert stream.getvalue() == "skipped a.jpg\n"


def test_work_of_an_earlier_command_says_nothing_of_the_speed(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("train", 100, "images", stream=stream, clock=clock)
    clock.seconds = 10
    progress.skip(60)
    clock.seconds = 20
    progress.advance(20)
    assert stream.getvalue().splitlines() == [
        "train: 60 of 100 images",
        "train: 80 of 100 images, 1.0 images/s, 0:00:20 remaining",
    ]


def test_without_a_total_there_is_no_remaining_time(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("features", None, "images", stream=stream, clock=clock)
    clock.seconds = 10
    progress.advance(5)
    assert stream.getvalue() == "features: 5 images, 0.5 images/s\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_reports_on_a_terminal_unless_it_is_quiet(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    controller, terminal = os.openpty()
    few = ["--train", "200", "--val", "100", "--only", "coco", "--size", "64"]
    with open(controller, "rb") as shown, open(terminal, "w") as stream:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", stream)
        flags = ["--quiet"] if quiet else []
        assert main(["synthesize", str(tmp_path / "scenes"), *few, *flags]) == 0
        stream.write("the end\n")
        stream.flush()
        text = shown.readline().decode()
    assert ("coco: " in text and " of 300 images, " in text) is not quiet
    assert capsys.readouterr().out == f"scenes written to {tmp_path / 'scenes'}\n"

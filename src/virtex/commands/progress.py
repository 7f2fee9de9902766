"""Progress of long work: a live line on a terminal, a line every ten seconds elsewhere.

It is written to standard error, apart from the output of the command. Lower rooms take a callable,
such as `Progress.advance`, and do not print.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Self, TextIO

_LIVE_SECONDS = 0.1
_PLAIN_SECONDS = 10.0


class Progress:
    """`LABEL: 20 of 100 UNITS, 5.0 UNITS/s, 0:00:16 remaining`, at most once in an interval.

    The first line follows after one interval. A live line is erased at the end, as commands print a
    summary. With `quiet`, only notes are printed.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        units: str,
        *,
        quiet: bool = False,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._total, self._units = label, total, units
        self._quiet, self._clock = quiet, clock
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._start = self._shown_at = clock()
        self._done = self._skipped = 0
        self._detail = ""
        self._width = 0  # of the live line that is on the terminal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._erase()

    def advance(self, count: int = 1, detail: str = "") -> None:
        """Count `count` more units as done; `detail`, such as a loss, ends the line."""
        self._done += count
        self._detail = f", {detail}" if detail else ""
        now = self._clock()
        if self._quiet or now - self._shown_at < (_LIVE_SECONDS if self._live else _PLAIN_SECONDS):
            return
        self._shown_at = now
        line = self._line(now - self._start)
        if not self._live:
            self._write(f"{line}\n")
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        self._write(f"\r{line:<{self._width}}")
        self._width = len(line)

    def skip(self, count: int) -> None:
        """Count units that an earlier command had done, which are no part of the rate."""
        self._skipped += count
        self.advance(count)

    @contextmanager
    def interrupted(self, label: str, total: int, units: str) -> Iterator[Callable[[int], None]]:
        """Show the progress of other work in this context, whose `advance` is given.

        Its duration is excluded from the rate.
        """
        self._erase()
        begun = self._clock()
        other = Progress(
            *(label, total, units), quiet=self._quiet, stream=self._stream, clock=self._clock
        )
        with other:
            yield other.advance
        self._start += self._clock() - begun

    def note(self, text: str) -> None:
        """Print a line that stays, even when quiet."""
        self._erase()
        self._write(f"{text}\n")

    def _line(self, seconds: float) -> str:
        of = "" if self._total is None else f" of {self._total:,}"
        line = f"{self._label}: {self._done:,}{of} {self._units}"
        rate = (self._done - self._skipped) / seconds
        if not rate:
            return line + self._detail
        line += f", {rate:,.1f} {self._units}/s" if rate >= 0.1 else f", {rate:.1g} {self._units}/s"
        if self._total is not None:
            remaining = timedelta(seconds=round((self._total - self._done) / rate))
            line += f", {remaining} remaining"
        return line + self._detail

    def _erase(self) -> None:
        if self._width:
            self._write(f"\r{'':<{self._width}}\r")
            self._width = 0

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

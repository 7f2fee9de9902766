"""Many inputs for one reader, in child processes: what crashes, hangs or grows is a finding.

An input is a function of (target, seed, number), so that the line of a finding makes it again.
"""

import faulthandler
import os
import resource
import signal
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

BATCH = 50
"""Inputs of one child; after a finding the next child goes on behind it."""
_LONGEST_MESSAGE = 20_000
_OUT_OF_TIME = "took longer than {} s"


class Target(Protocol):
    """A reader of files and inputs for it."""

    name: str
    allowed: tuple[type[Exception], ...]
    """What `read` may raise; any other way to end is a finding."""

    def generate(self, rng: np.random.Generator) -> bytes:
        """The bytes of one file."""
        ...

    def read(self, content: bytes, directory: Path) -> object:
        """Give the bytes to the reader, as a file in an empty directory of its own."""
        ...


@dataclass(frozen=True)
class Limits:
    """What one input may take."""

    seconds: float = 5.0
    megabytes: int = 1024
    """Of memory beyond what the process has before; the largest amount ever resident counts."""


@dataclass(frozen=True)
class Finding:
    """An input that ended otherwise than it may."""

    target: str
    seed: int
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.target} --seed {self.seed} --number {self.number}: {self.what}"


def content(target: Target, seed: int, number: int) -> bytes:
    """The input of that number."""
    return target.generate(np.random.default_rng([seed, number]))


def campaign(
    target: Target, seed: int, first: int, count: int, limits: Limits | None = None
) -> list[Finding]:
    """What the inputs `first` … `first + count - 1` found."""
    limits = limits or Limits()
    findings = []
    number, end = first, first + count
    while number < end:
        done, what = _batch(target, seed, range(number, min(number + BATCH, end)), limits)
        number += done
        if what is not None:
            findings.append(Finding(target.name, seed, number, what))
            number += 1
    return findings


def _batch(target: Target, seed: int, numbers: range, limits: Limits) -> tuple[int, str | None]:
    """How many inputs ended as they may, and how the one after them ended, if there is one."""
    reading, writing = os.pipe()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(target, seed, numbers, limits, Path(root), writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            lines = pipe.read().decode().splitlines()
        _, status = os.waitpid(child, 0)
    done = lines.count("done")
    if done == len(numbers):
        return done, None
    told = [line for line in lines if line != "done"]
    if told:
        return done, told[-1]
    if os.WIFSIGNALED(status):
        which = signal.Signals(os.WTERMSIG(status)).name
        late = which == "SIGALRM"
        return done, _OUT_OF_TIME.format(limits.seconds) if late else f"ended by {which}"
    return done, f"the interpreter ended with status {os.waitstatus_to_exitcode(status)}"


def _child(
    target: Target, seed: int, numbers: range, limits: Limits, root: Path, writing: int
) -> NoReturn:
    """Read inputs until one ends as it may not; tells so, a line each, and ends the process."""
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - what libraries print
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        warnings.simplefilter("ignore")
        faulthandler.disable()  # which pytest has enabled, and which writes elsewhere
        # SIGALRM's own action ends the process, also inside a C function.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # Above the limit on resident memory: what is reserved and never touched is no harm.
        most = _virtual() + 16 * limits.megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        for number in numbers:
            directory = root / str(number)
            directory.mkdir()
            what = _ending(target, content(target, seed, number), directory, limits)
            os.write(writing, (what or "done").encode(errors="replace") + b"\n")
            if what is not None:
                os._exit(1)
    except BaseException:  # noqa: BLE001 - the target's own mistake must be seen
        told = " ".join(traceback.format_exc()[-500:].split())
        os.write(writing, f"the target failed: {told}\n".encode(errors="replace"))
        os._exit(2)
    os._exit(0)


def _ending(target: Target, data: bytes, directory: Path, limits: Limits) -> str | None:
    """How the reading of `data` ended, where that is a finding."""
    before = _resident_peak()
    what = None
    signal.setitimer(signal.ITIMER_REAL, limits.seconds)
    try:
        target.read(data, directory)
    except target.allowed as error:
        if not str(error) or len(str(error)) > _LONGEST_MESSAGE:
            what = f"a message of {len(str(error))} characters"
    except BaseException as error:  # noqa: BLE001 - what is looked for
        last = traceback.extract_tb(error.__traceback__)[-1]
        told = " ".join(str(error)[:200].split())
        what = f"{type(error).__name__}: {told} ({Path(last.filename).name}:{last.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = (_resident_peak() - before) >> 20
    if what is None and grown > limits.megabytes:
        what = f"took {grown} MB of memory"
    return what


def _resident_peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _virtual() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()

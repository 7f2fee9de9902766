"""Checkpoint files of tensors and plain values, written atomically."""

import os
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from virtex.checkpoints.inspection import check_sums, inspect
from virtex.errors import RunError, UserError, first_line
from virtex.files import check_local, whole_file

State = Mapping[str, Any]

_NAME = re.compile(r"checkpoint_(\d+)\.pth")
_PLAIN = (str, int, float, bool, bytes, type(None))
# The errors that torch's and Python's readers are known to raise on altered bytes.
_DAMAGE = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class DamagedCheckpoint(UserError):
    """A checkpoint file that is truncated, altered or not a checkpoint."""


def checkpoint_path(directory: Path, iteration: int) -> Path:
    """The path of the checkpoint after `iteration` steps."""
    return directory / f"checkpoint_{iteration}.pth"


def checkpoint_iteration(path: Path) -> int | None:
    """The iteration in a checkpoint's file name, or None for another name."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def checkpoints(directory: Path) -> list[Path]:
    """The checkpoint files of a directory, oldest first."""
    return [path for _, path in _numbered(directory)]


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    """The checkpoint files of a directory with their iterations, oldest first."""
    paths = directory.glob("checkpoint_*.pth")
    return sorted((n, path) for path in paths if (n := checkpoint_iteration(path)) is not None)


def save(path: Path, state: State) -> None:
    """Write `state` to `path` atomically: a reader finds the complete file, or the previous one.

    The file is read back and its checksums are compared before it gets its name. Raises `RunError`
    if any of that fails, for instance on a full disk; `path` is then unchanged.
    """
    foreign = next(_foreign(state), None)
    assert foreign is None, f"{foreign} could be saved but not loaded"
    try:
        with whole_file(path) as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
            # Read back from the disk, not from the page cache, where the system allows it.
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            check_sums(Path(file.name))
        _flush_directory(path.parent)
    # torch's zip writer turns a failed write into a RuntimeError.
    except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise RunError(
            f"could not save {path}: {error}; earlier checkpoints are intact. Free disk space or "
            "repair the directory, then continue with --resume-from latest"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, as tensors and plain values only.

    Raises `UserError` if the file does not exist, and `DamagedCheckpoint` if it is not intact.
    """
    check_local(path)
    if path.is_dir():
        raise UserError(f"{path} is a directory; name one of the checkpoints in it")
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path}: no read permission; change its permissions")
    try:
        _check_memory(path, inspect(path))
        check_sums(path)
        with warnings.catch_warnings():
            # A file of another protocol that torch cannot read is an error anyway.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(
            f"{path} is not a checkpoint of tensors and plain values; it was not loaded, as "
            "such a file could run code. If you trust it, save only its weights with the program "
            "that wrote it"
        ) from error
    except _DAMAGE as error:
        raise DamagedCheckpoint(
            f"{path} is truncated or damaged and cannot be read ({first_line(error)[:200]})"
        ) from error
    if not isinstance(state, dict):
        kind = type(state).__name__
        raise DamagedCheckpoint(f"{path} holds a {kind} instead of a mapping")
    return state


def newest_readable(
    directory: Path, *, before: int | None = None, after: int = -1
) -> tuple[Path, dict[str, Any], list[Path]] | None:
    """The newest intact checkpoint, its state, and the damaged ones that are newer.

    Only iterations below `before` and above `after` count. None if no checkpoint is intact.
    """
    damaged: list[Path] = []
    for iteration, path in reversed(_numbered(directory)):
        if iteration <= after or (before is not None and iteration >= before):
            continue
        try:
            return path, load(path), damaged
        except DamagedCheckpoint:
            damaged.append(path)
    return None


def remove_partial_files(directory: Path) -> None:
    """Delete the temporary files of saves that were killed."""
    for path in directory.glob(".checkpoint_*.partial*"):
        path.unlink()


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a run are kept: the `recent` newest, or all if that is None.

    With a `milestone`, the first one at or after each of its multiples is kept as well, if the run
    saves every `interval` iterations, and so are all up to iteration `untouched`.
    """

    recent: int | None
    milestone: int | None = None
    interval: int = 1
    untouched: int = -1

    def keeps(self, iteration: int) -> bool:
        """Whether a checkpoint is kept even though it is not among the newest."""
        if self.milestone is None:
            return False
        if iteration <= self.untouched:
            return True
        return iteration // self.milestone > (iteration - self.interval) // self.milestone

    def select(self, saved: Sequence[int]) -> set[int]:
        """Those of the checkpoints of these iterations, in order, that are kept."""
        if self.recent is None:
            return set(saved)
        earlier = (iteration for iteration in saved[: -self.recent] if self.keeps(iteration))
        return {*earlier, *saved[-self.recent :]}


def remove_old(directory: Path, retention: Retention) -> None:
    """Delete the checkpoints that `retention` does not keep."""
    saved = dict(_numbered(directory))
    for iteration in saved.keys() - retention.select(list(saved)):
        saved[iteration].unlink()


def _check_memory(path: Path, needed: int) -> None:
    """Raise `UserError` if tensors of `needed` bytes would not fit into the available memory."""
    try:
        figures = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return  # not Linux
    found = re.search(r"^MemAvailable: +(\d+) kB$", figures, re.MULTILINE)
    if found is not None and needed > (free := int(found[1]) * 1024):
        raise UserError(
            f"the tensors of {path} take {needed / 2**30:.1f} GiB of memory, but only "
            f"{free / 2**30:.1f} GiB are free; use a machine with more memory, or end other "
            "programs"
        )


def _foreign(value: object, name: str = "state") -> Iterator[str]:
    """The names of values that are neither tensors nor plain values."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _foreign(key, f"a key of {name}")
            yield from _foreign(inner, f"{name}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _foreign(inner, f"{name}[{index}]")
    elif not isinstance(value, torch.Tensor) and type(value) not in _PLAIN:
        yield f"{name}, a {type(value).__name__},"


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

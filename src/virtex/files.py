"""Local files: checks of their paths, bounded reads, atomic writes, and the errors of both."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from virtex.errors import UserError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""Two letters or more, as one letter is a drive; `Path` keeps only one of two slashes."""


def is_address(path: str | Path) -> bool:
    """Whether a path is an address such as `s3://bucket/file` instead of a local path."""
    return _ADDRESS.match(str(path)) is not None


def check_local(path: str | Path) -> None:
    """Raise `UserError` for an address, which would otherwise be used as a local path."""
    if is_address(path):
        raise UserError(f"{path} is an address; {LOCAL_ONLY}")


LOCAL_ONLY = (
    "expected a path on a local or mounted disk; only shards (DATA.ROOT) can be read from addresses"
)


@contextmanager
def reading(path: str | Path, kind: type[UserError] = UserError) -> Iterator[None]:
    """Raise an OSError in this context as an error of `kind` that names the path."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def writing(path: str | Path, kind: type[UserError] = UserError) -> Iterator[None]:
    """Raise an OSError in this context as an error of `kind` that names the path."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(directory: Path) -> None:
    """Make a directory if it does not exist; raise UserError if files cannot be written in it."""
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()


def read_at_most(path: Path, limit: int, *, name: str, remedy: str) -> bytes:
    """The content of a file; raises UserError if it has more than `limit` bytes or none at all.

    Messages begin with `name` and end with `remedy`.
    """
    check_local(path)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist; {remedy}") from error
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}; {remedy}") from error
    if len(content) > limit:
        raise UserError(f"{name} is larger than {limit >> 20} MB; {remedy}")
    return content


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that is renamed to `path` at the end of the context.

    If the process or the context fails before, `path` is unchanged. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, with its directories; raises UserError on failure."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content)

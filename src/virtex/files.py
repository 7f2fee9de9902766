"""Paths of local files, and files that are whole or not there; every room may import this."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from virtex.errors import UserError

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""Two letters or more, as a single one is a drive; `Path` leaves one slash of two."""


def is_address(path: str | Path) -> bool:
    """Whether this is an address such as `s3://bucket/file`, not the path of a local file."""
    return _ADDRESS.match(str(path)) is not None


def check_local(path: str | Path) -> None:
    """Raise `UserError` where a path is an address, which would be taken for a local name."""
    if is_address(path):
        raise UserError(f"{path} is an address; {LOCAL_ONLY}")


LOCAL_ONLY = (
    "expected a path on a local or mounted disk, as only shards (DATA.ROOT) are read from addresses"
)


@contextmanager
def reading(path: str | Path, kind: type[UserError] = UserError) -> Iterator[None]:
    """Raise an OSError in this context as an error of `kind` that names the path."""
    try:
        yield
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` at the context's end, replacing what was there.

    Where the process or the writing ends before, `path` is as it was. Raises OSError.
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
    """Write `content` to `path` as by `whole_file`, and make the directories above it.

    Raises `UserError` where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error

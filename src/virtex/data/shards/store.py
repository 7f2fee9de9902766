"""The files of one directory, on a disk or in memory, read in parts by name."""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from virtex.data.recently_used import RecentlyUsed
from virtex.errors import RunError, UserError
from virtex.files import reading, whole_file

_OPEN_FILES = 64
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class FileVersion:
    """The size of a file in bytes, and a text that changes when the file is rewritten."""

    size: int
    version: str


class Store(Protocol):
    """The files directly inside one directory; errors name a file with its full address.

    A store can be pickled, and used in a forked process, but not by two threads at once.
    """

    @property
    def root(self) -> str:
        """The directory's path or address."""
        ...

    def list_files(self) -> dict[str, FileVersion] | None:
        """All files, by name; None if the store cannot list. Raises UserError if that fails."""
        ...

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Set the bytes and the SHA-256, in hex, of files, which a store that fetches checks."""
        ...

    def size(self, name: str) -> int:
        """The size of a file in bytes; raises UserError if it does not exist."""
        ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from `offset` on, fewer than `length` if the file ends before.

        Raises UserError if the file does not exist, RunError if reading fails.
        """
        ...

    def write(self, name: str, content: bytes) -> bool:
        """Write a whole file; False if the store is read-only.

        Raises RunError if writing fails for another reason.
        """
        ...


class LocalStore:
    """A directory on a disk; files that are read in parts stay open, the last 64 of them."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: RecentlyUsed[str, int] = RecentlyUsed(_OPEN_FILES)

    @property
    def root(self) -> str:
        return self._root

    def list_files(self) -> dict[str, FileVersion]:
        """All files; a version is the size and the modification time."""
        try:
            with os.scandir(self._root) as entries:
                statuses = {entry.name: entry.stat() for entry in entries if entry.is_file()}
        except OSError as error:
            raise UserError(
                f"cannot list {self._root}: {error.strerror}; check DATA.ROOT"
            ) from error
        return {
            name: FileVersion(status.st_size, f"{status.st_size} {status.st_mtime_ns}")
            for name, status in statuses.items()
        }

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Do nothing: readers check what they read."""

    def size(self, name: str) -> int:
        with reading(self._path(name)):
            return self._path(name).stat().st_size

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            with reading(self._path(name), RunError):
                if length is None:
                    with self._path(name).open("rb") as file:
                        file.seek(offset)
                        return file.read()
                return read_at(self._descriptor(name), offset, length)
        except RunError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise UserError(f"{self._path(name)} does not exist") from error
            raise

    def write(self, name: str, content: bytes) -> bool:
        path = self._path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(content)
        except OSError as error:
            if error.errno in _READ_ONLY:
                return False
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        return True

    def _path(self, name: str) -> Path:
        return Path(self._root, name)

    def _descriptor(self, name: str) -> int:
        descriptor = self._open.get(name)
        if descriptor is None:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
            for unused in self._open.put(name, descriptor):
                os.close(unused)
        return descriptor

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str]]:
        return type(self), (self._root,)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class MemoryStore:
    """Files in this process's memory."""

    def __init__(self, root: str) -> None:
        """`root` is its name in messages."""
        self._root = root
        self._files: dict[str, bytes] = {}

    @property
    def root(self) -> str:
        return self._root

    def list_files(self) -> dict[str, FileVersion]:
        return {name: FileVersion(len(file), "") for name, file in self._files.items()}

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Do nothing: this process wrote the files."""

    def size(self, name: str) -> int:
        return len(self.read(name))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self._files:
            raise UserError(f"{self._root}/{name} does not exist")
        return self._files[name][offset : None if length is None else offset + length]

    def write(self, name: str, content: bytes) -> bool:
        self._files[name] = content
        return True


def read_at(descriptor: int, offset: int, length: int) -> bytes:
    """At most `length` bytes of an open file from `offset` on, fewer at its end.

    Forked processes share the position in a file, which this neither uses nor changes.
    """
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, offset)):  # 2 GiB at most
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def cache_directory(chosen: Path | None) -> Path:
    """The directory for files that can be made again: `chosen`, or else the user's."""
    if chosen is not None:
        return chosen
    parent = os.environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache") / "virtex"

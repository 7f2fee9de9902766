"""Named files of one directory, on a disk or elsewhere, read in parts."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from virtex.data.recently_used import RecentlyUsed
from virtex.errors import RunError, UserError
from virtex.files import reading, whole_file

_OPEN_FILES = 64
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Store(Protocol):
    """Files directly inside of one directory; errors name the file with its full address.

    It can be pickled, and used on in a forked process, though not by two threads at once.
    """

    @property
    def root(self) -> str:
        """The directory's path or address."""
        ...

    def names(self) -> list[str]:
        """The files directly inside, sorted; raises UserError where it cannot be listed."""
        ...

    def sizes(self) -> dict[str, int] | None:
        """The bytes of each file directly inside, by one listing; None where none can be had.

        Raises UserError as `names` does.
        """
        ...

    def versions(self) -> dict[str, str] | None:
        """What changes with each file when it is written again; None where that is not known."""
        ...

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """What files must be, bytes and SHA-256 in hex: a store that fetches them checks it."""
        ...

    def size(self, name: str) -> int:
        """A file's bytes; raises UserError where there is no such file."""
        ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes from `offset` on, fewer than `length` where the file ends before.

        Raises UserError where there is no such file, RunError where reading fails.
        """
        ...

    def write(self, name: str, content: bytes) -> bool:
        """Write a whole file at once; False where none can be written here.

        Raises RunError where writing fails for another reason.
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

    def names(self) -> list[str]:
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        return {name: status.st_size for name, status in self._statuses().items()}

    def versions(self) -> dict[str, str]:
        """Sizes and times of writing."""
        return {
            name: f"{status.st_size} {status.st_mtime_ns}"
            for name, status in self._statuses().items()
        }

    def _statuses(self) -> dict[str, os.stat_result]:
        try:
            with os.scandir(self._root) as entries:
                return {entry.name: entry.stat() for entry in entries if entry.is_file()}
        except OSError as error:
            raise UserError(
                f"cannot list {self._root}: {error.strerror}; check DATA.ROOT"
            ) from error

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Nothing: what is read from a file here is checked by who reads it."""

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
                return self._part(self._descriptor(name), offset, length)
        except RunError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise UserError(f"there is no file {self._path(name)}") from error
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

    @staticmethod
    def _part(descriptor: int, offset: int, length: int) -> bytes:
        # By position: processes that were forked share a descriptor's place in the file.
        part = os.pread(descriptor, length, offset)
        while part and len(part) < length:  # one call gives 2 GiB at most
            more = os.pread(descriptor, length - len(part), offset + len(part))
            if not more:
                break
            part += more
        return part

    def __reduce__(self) -> tuple[type["LocalStore"], tuple[str]]:
        return type(self), (self._root,)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


class MemoryStore:
    """Files in this process's memory."""

    def __init__(self, root: str) -> None:
        """`root` is what messages call it."""
        self._root = root
        self._files: dict[str, bytes] = {}

    @property
    def root(self) -> str:
        return self._root

    def names(self) -> list[str]:
        return sorted(self._files)

    def sizes(self) -> dict[str, int]:
        return {name: len(content) for name, content in self._files.items()}

    def versions(self) -> None:
        """Not known."""

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Nothing: this process wrote the files."""

    def size(self, name: str) -> int:
        return len(self.read(name))

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name not in self._files:
            raise UserError(f"there is no file {self._root}/{name}")
        return self._files[name][offset : None if length is None else offset + length]

    def write(self, name: str, content: bytes) -> bool:
        self._files[name] = content
        return True


def cache_directory(given: Path | None) -> Path:
    """The directory for what can be made again: `given`, or else the user's."""
    if given is not None:
        return given
    parent = os.environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache") / "virtex"

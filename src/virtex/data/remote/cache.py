"""A cache of remote files: a directory of bounded size that all processes of a machine share.

An entry is the content and a trailer with its length, checksum and version. It appears by a rename
and is removed, when space is needed, by an unlink: a process that has it open can still read it. An
entry is being fetched while a process holds the lock of its `.partial`; if that process dies, the
next one takes over. Locks are flock's, so the directory must be on a local disk.

The modification time shows that an entry is unaltered: its nanoseconds are taken from the checksum,
which no other writer does, and its seconds are the time when the content was last checked.
"""

import fcntl
import hashlib
import os
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from virtex.data.shards.store import read_at
from virtex.errors import RunError, UserError

_TRAILER = struct.Struct("<QI16s8s")  # length, CRC-32 of the content, version, _MAGIC
TRAILER_BYTES = _TRAILER.size
_MAGIC = b"virtex\0\1"
_NAMES = re.compile(r"[0-9a-f]{40}\.(file|partial)")
_SECOND = 10**9
_WINDOW = 1 << 20
_POLL_SECONDS = 0.02  # between attempts while the cache is full


class CachedFile:
    """An open entry, which stays readable even when the cache removes it; owns the descriptor."""

    def __init__(self, descriptor: int, length: int, checksum: int, version: bytes) -> None:
        self._descriptor = descriptor
        self._checksum = checksum
        self.length = length
        self.version = version

    def __del__(self) -> None:
        os.close(self._descriptor)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `offset`, fewer at the end of the content."""
        end = self.length if length is None else min(self.length, offset + length)
        return read_at(self._descriptor, offset, end - offset)

    def is_unaltered(self) -> bool:
        """Whether it was not written to since it was fetched or checked, by its size and time."""
        status = os.fstat(self._descriptor)
        size = self.length + _TRAILER.size
        return status.st_size == size and status.st_mtime_ns % _SECOND == self._checksum % _SECOND

    def check(self, since: int) -> bool:
        """Whether the content has its checksum, which is trusted if checked after `since` (s)."""
        checked = os.fstat(self._descriptor).st_mtime_ns // _SECOND
        if self.is_unaltered() and checked >= since:
            _mark(self._descriptor, self._checksum, checked)
            return True
        checksum = 0
        for offset in range(0, self.length, _WINDOW):
            checksum = zlib.crc32(self.read(offset, _WINDOW), checksum)
        if checksum != self._checksum:
            return False
        _mark(self._descriptor, checksum, int(time.time()))
        return True


class FileCache:
    """At most `limit` bytes of files in `directory`, the least recently opened removed first."""

    def __init__(self, directory: Path, limit: int) -> None:
        """Processes that share this object check each older entry's checksum once."""
        self._directory = directory
        self._limit = limit
        self._since = int(time.time())

    def find(self, address: str) -> CachedFile | None:
        """The entry of an address, of any version; None if there is none or it is damaged.

        Raises RunError if the directory cannot be read.
        """
        with self._errors(address):
            return self._find(self._path(address))

    def open(
        self, address: str, version: str, size: int, fetch: Callable[[], Iterable[bytes]]
    ) -> CachedFile:
        """The entry of this version; if there is none, `fetch` gives its `size` bytes.

        One process fetches, others wait for it. An error of `fetch` passes through and leaves
        nothing behind. Raises UserError if the file is larger than the cache, and RunError if the
        directory cannot be written.
        """
        path, wanted = self._path(address), hashlib.sha256(version.encode()).digest()[:16]
        if size + _TRAILER.size > self._limit:
            raise UserError(
                f"{address} has {size} bytes, more than the whole cache {self._directory} may hold"
                f" ({self._limit}); set a limit of several such files"
            )
        with self._errors(address):
            if (found := self._find(path)) and found.version == wanted:
                return found
            partial = path.with_suffix(".partial")
            self._directory.mkdir(parents=True, exist_ok=True)
            with _sole_writer(partial) as descriptor:
                # Another process may have fetched it while this one waited.
                if (found := self._find(path)) and found.version == wanted:
                    return found
                self._reserve(descriptor, size + _TRAILER.size)
                checksum = _fill(descriptor, size, wanted, fetch())
                with self._locked():
                    partial.rename(path)
                return CachedFile(os.dup(descriptor), size, checksum, wanted)

    def _path(self, address: str) -> Path:
        return self._directory / f"{hashlib.sha256(address.encode()).hexdigest()[:40]}.file"

    def _find(self, path: Path) -> CachedFile | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        content = os.fstat(descriptor).st_size - _TRAILER.size
        trailer = os.pread(descriptor, _TRAILER.size, max(0, content))
        if len(trailer) < _TRAILER.size:
            os.close(descriptor)
            return None
        length, checksum, version, magic = _TRAILER.unpack(trailer)
        file = CachedFile(descriptor, length, checksum, version)
        is_whole = magic == _MAGIC and length == content and file.check(self._since)
        return file if is_whole else None

    def _reserve(self, descriptor: int, size: int) -> None:
        """Give the file its size once there is space for it.

        Waits while files that other processes are fetching take all of the space; each of them can
        be removed when it is complete.
        """
        os.ftruncate(descriptor, 0)
        while True:
            with self._locked():
                if self._make_space(size):
                    os.ftruncate(descriptor, size)
                    return
            time.sleep(_POLL_SECONDS)

    def _make_space(self, size: int) -> bool:
        """Whether `size` bytes fit, after removing the oldest entries if necessary."""
        used, entries = 0, []
        for path in self._directory.iterdir():
            if not _NAMES.fullmatch(path.name) or _remove_abandoned(path):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # a partial one whose writer failed
                continue
            used += status.st_size
            if path.suffix == ".file":
                entries.append((status.st_atime_ns, status.st_size, path))
        if used - sum(entry[1] for entry in entries) + size > self._limit:
            return False
        for _, freed, path in sorted(entries):
            if used + size <= self._limit:
                break
            path.unlink(missing_ok=True)
            used -= freed
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from adding and removing files."""
        descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(descriptor)

    @contextmanager
    def _errors(self, address: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot keep {address} in the cache {self._directory}: {error.strerror}; it must"
                f" be a directory on a local disk with space for {self._limit} bytes"
            ) from error


@contextmanager
def _sole_writer(partial: Path) -> Iterator[int]:
    """The descriptor of a file that only this process writes; removed unless it is renamed."""
    descriptor = _take(partial)
    try:
        yield descriptor
    finally:
        if _is_at(descriptor, partial):
            partial.unlink()
        _unlock(descriptor)


def _take(partial: Path) -> int:
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, partial):
            return descriptor
        _unlock(descriptor)  # it was completed or removed in the meantime


def _unlock(descriptor: int) -> None:
    # Explicitly: a process forked meanwhile has a descriptor of the same lock.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_abandoned(path: Path) -> bool:
    """Remove the partial file of a process that died; False for a file in use."""
    if path.suffix != ".partial":
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    if _is_at(descriptor, path):
        path.unlink()
    _unlock(descriptor)
    return True


def _fill(descriptor: int, size: int, version: bytes, content: Iterable[bytes]) -> int:
    """Write the content and the trailer; returns the content's checksum."""
    length = checksum = 0
    with open(descriptor, "r+b", closefd=False) as file:
        for part in content:
            file.write(part)
            length += len(part)
            checksum = zlib.crc32(part, checksum)
        assert length == size, (length, size)
        file.write(_TRAILER.pack(length, checksum, version, _MAGIC))
    # Without fsync: the next run's check of the content finds what a power failure loses.
    _mark(descriptor, checksum, int(time.time()))
    return checksum


def _mark(descriptor: int, checksum: int, seconds: int) -> None:
    # A file of another user can be read but not marked: then every process checks it.
    with suppress(PermissionError):
        modified = seconds * _SECOND + checksum % _SECOND
        os.utime(descriptor, ns=(time.time_ns(), modified))

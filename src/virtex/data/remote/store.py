"""The files of a remote directory, each fetched once for all processes of a machine.

`s3://`, `gs://`, `https://` and the other protocols of fsspec, with the extra `remote`. The address
of a server with S3's interface, such as MinIO, is AWS_ENDPOINT_URL; other options of a protocol are
those of fsspec: FSSPEC_S3_ANON=true in the environment, or a file in ~/.config/fsspec.
"""

import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from os import getpid
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from virtex.data.recently_used import RecentlyUsed
from virtex.data.remote.cache import CachedFile, FileCache
from virtex.data.remote.directory import (
    HTTP,
    PART,
    RemoteDirectory,
    Retries,
    UnreachableError,
    ignore_message,
)
from virtex.data.shards.store import FileVersion, LocalStore, Store
from virtex.data.shared_strings import shared
from virtex.errors import RunError, UserError

_OPEN_FILES = 16
_MAX_DOWNLOADS = 3  # of a file with the wrong content
_WITH_BUCKETS = ("s3", "s3a", "gs", "gcs")
_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}")  # as they were allowed once
_SLOTS = 256  # of counts, so that threads rarely share one


class RemoteStatistics(NamedTuple):
    """Counts of a store, over all processes that share it."""

    files: int = 0  # fetched
    bytes: int = 0  # fetched, including those of wrong content
    retries: int = 0  # of requests
    mismatches: int = 0  # downloads whose checksum was not that of the manifest
    unverified: int = 0  # cached files that were used while the server was unreachable

    def __str__(self) -> str:
        line = f"{self.files} files fetched, {self.bytes / 1e9:.3f} GB"
        problems = {
            "requests repeated": self.retries,
            "downloads of wrong content": self.mismatches,
            "cached files used unverified": self.unverified,
        }
        return ", ".join([line, *(f"{n} {what}" for what, n in problems.items() if n)])


class RemoteStore:
    """A `Store` whose reads are of whole files in a local cache.

    A file of a known checksum (`register_checksums`) is requested once, and not again while the
    cache keeps it. Any other file may change on the server: its version is requested once in a
    process, and the cached file is used if that fails.

    It can be pickled and forked; the statistics are those of all processes that torch or
    multiprocessing passed it to when they started.
    """

    def __init__(
        self,
        root: str,
        *,
        cache_dir: Path,
        cache_bytes: int,
        retries: Retries | None = None,
        notify: Callable[[str], None] = ignore_message,
    ) -> None:
        """Sends no request; `notify` is called with lines for the user, and can be pickled.

        Raises UserError if the address cannot be that of a directory.
        """
        self._root = _checked_root(root)
        self._cache = FileCache(cache_dir, cache_bytes)
        self._retries, self._notify = retries or Retries(), notify
        self._expected: dict[str, FileVersion] = {}
        self._counts = shared(np.zeros((_SLOTS, len(RemoteStatistics._fields)), np.int64))
        self._process: _Process | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_process": None}

    @property
    def root(self) -> str:
        """The address of the directory, without a trailing slash."""
        return self._root

    @property
    def statistics(self) -> RemoteStatistics:
        """The counts so far."""
        return RemoteStatistics(*self._counts.numpy().sum(axis=0).tolist())

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """Set the size of files, and their SHA-256 in hex.

        To be called before the store is passed to other processes.
        """
        self._expected |= {name: FileVersion(*content) for name, content in files.items()}

    def list_files(self) -> dict[str, FileVersion] | None:
        """All files, by name; None over HTTP, which cannot list."""
        return self._local().directory.list_files()

    def size(self, name: str) -> int:
        """The size of a file in bytes; raises UserError if it does not exist, else RunError."""
        try:
            return self._version(name).size
        except UnreachableError:
            if (cached := self._cache.find(self._local().directory.address(name))) is None:
                raise
            return cached.length

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `offset`, fewer at the end of the file.

        Raises UserError if the file does not exist, access is refused or the cache is too small for
        it, and RunError if it cannot be fetched or its content does not have the checksum.
        """
        files = self._local().files
        file = files.get(name)
        if file is None or not file.is_unaltered():
            file = self.fetch(name)
        files.put(name, file)
        return file.read(offset, length)

    def fetch(self, name: str) -> CachedFile:
        """A file in the cache, as the most recently used; raises as `read` does."""
        address = self._local().directory.address(name)
        try:
            version = self._version(name)
        except UnreachableError:
            if (cached := self._cache.find(address)) is None:
                raise
            self._count("unverified")
            return cached
        fetch = partial(self._download, name, version.size)
        for _ in range(_MAX_DOWNLOADS):
            try:
                return self._cache.open(address, version.version, version.size, fetch)
            except _MismatchError:
                self._count("mismatches")
        raise RunError(
            f"{address}: in {_MAX_DOWNLOADS} downloads the content did not have the checksum"
            f" {version.version} that the manifest gives; the file was damaged or replaced there:"
            " write it again, or the manifest"
        )

    def write(self, name: str, content: bytes) -> bool:
        """Write a file; False if the store is read-only."""
        local = self._local()
        local.files.drop(name)
        local.versions.pop(name, None)
        return local.directory.write(name, content)

    def _local(self) -> "_Process":
        """The objects of this process alone."""
        if self._process is None or self._process.pid != getpid():
            on_retry = partial(self._count, "retries")
            directory = RemoteDirectory(self._root, self._retries, on_retry, self._notify)
            # Keep the parent's: closing its sessions in another process would be an error.
            self._process = _Process(getpid(), directory, self._process)
        return self._process

    def _count(self, what: str, number: int = 1) -> None:
        column = RemoteStatistics._fields.index(what)
        # A slot for each thread: of two threads that add to one number, one addition is lost.
        self._counts.numpy()[threading.get_native_id() % _SLOTS, column] += number

    def _version(self, name: str) -> FileVersion:
        """The version of a file; that of an expected one is its checksum."""
        local = self._local()
        version = self._expected.get(name) or local.versions.get(name)
        if version is None:
            cached = self._cache.find(local.directory.address(name))
            version = local.directory.version(name, attempts=2 if cached else None)
            local.versions[name] = version
        return version

    def _download(self, name: str, size: int) -> Iterator[bytes]:
        directory = self._local().directory
        sha256, start = hashlib.sha256(), 0
        while start < size:
            part = directory.read(name, start, min(start + PART, size), size)
            sha256.update(part)
            start += len(part)
            self._count("bytes", len(part))
            yield part
        if name in self._expected and self._expected[name].version != sha256.hexdigest():
            raise _MismatchError
        self._count("files")


def open_store(
    root: str,
    *,
    cache_dir: Path,
    cache_gb: float,
    notify: Callable[[str], None] = ignore_message,
) -> Store:
    """Open the directory `root`, a path or an address such as `s3://bucket/directory`.

    Files from an address are kept in `cache_dir`, up to `cache_gb` (10^9 bytes). `notify` is that
    of `RemoteStore`.
    """
    if "://" not in root:
        return LocalStore(root)
    return RemoteStore(root, cache_dir=cache_dir, cache_bytes=int(cache_gb * 1e9), notify=notify)


class _MismatchError(Exception):
    """The content of a file does not have the expected checksum."""


@dataclass
class _Process:
    """Connections and open files of one process."""

    pid: int
    directory: RemoteDirectory
    parent: "_Process | None"
    files: RecentlyUsed[str, CachedFile] = field(default_factory=lambda: RecentlyUsed(_OPEN_FILES))
    versions: dict[str, FileVersion] = field(default_factory=dict)


def _checked_root(root: str) -> str:
    try:
        parts = urlsplit(root)
        password = parts.password
    except ValueError as error:
        raise UserError(f"a remote address is malformed: {error}") from error
    if password is not None or (parts.scheme in HTTP and "@" in parts.netloc):
        raise UserError(
            f"an address of {parts.hostname} contains a user or a password; set them in the"
            " environment or ~/.netrc, as addresses are printed"
        )
    if not parts.scheme or "://" not in root:
        raise UserError(f"{root!r} is not a remote address; expected s3://…, gs://…, https://…")
    named = parts.netloc.startswith("arn:") or _BUCKET.fullmatch(parts.netloc)
    if parts.scheme in _WITH_BUCKETS and not named:
        raise UserError(
            f"{root}: {parts.netloc!r} is not the name of a bucket; expected 3 or more letters,"
            " digits, dots, hyphens and underscores"
        )
    if parts.query or parts.fragment:
        raise UserError(
            f"{parts.scheme}://{parts.netloc}{parts.path}: the address of a directory must not"
            " contain '?' or '#', as names of files are appended to it"
        )
    return root.rstrip("/")

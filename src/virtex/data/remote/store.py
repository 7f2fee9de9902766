"""The files of a remote directory, each fetched once for all processes of a machine.

`s3://`, `gs://`, `https://` and what else fsspec knows, with the extra `remote`. A server that
speaks S3's language, such as MinIO, is named by AWS_ENDPOINT_URL; other options of a protocol are
fsspec's own: FSSPEC_S3_ANON=true in the environment, or a file in ~/.config/fsspec.
"""

import hashlib
import re
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from os import getpid
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from virtex.data.recently_used import RecentlyUsed
from virtex.data.remote.cache import CachedFile, FileCache
from virtex.data.remote.directory import HTTP, PART, RemoteDirectory, Retries, UnreachableError
from virtex.data.shards.store import LocalStore, Store
from virtex.data.shared_strings import shared
from virtex.errors import RunError, UserError

_OPEN_FILES = 16
_DOWNLOADS = 3  # of content that turns out to be wrong
_SLOTS = 256  # threads that count without disturbing each other
_DIGEST = re.compile(r"[0-9a-f]{8}|[0-9a-f]{64}")


class RemoteStatistics(NamedTuple):
    """What a store did so far, in all processes that share it."""

    files: int = 0  # fetched
    bytes: int = 0  # that came, those of files that turned out to be wrong as well
    retries: int = 0  # requests made again
    mismatches: int = 0  # files whose content was not what the manifest says
    unverified: int = 0  # kept files that were used because the far side could not be asked

    def __str__(self) -> str:
        line = f"{self.files} files fetched, {self.bytes / 1e9:.3f} GB"
        troubles = (
            (self.retries, "requests made again"),
            (self.mismatches, "downloads of wrong content"),
            (self.unverified, "kept files used unverified"),
        )
        return ", ".join([line, *(f"{number} {what}" for number, what in troubles if number)])


class RemoteStore:
    """A `Store` whose reads are of whole files in a local cache.

    A file of a known checksum (`register_checksums`) is asked for once, and never again while the
    cache keeps it. Any other one may change at its source: its version is asked for once in a
    process, and what the cache has is used when that fails.

    It can be pickled and forked; the statistics are of all processes that torch's or
    multiprocessing's start-up handed it to.
    """

    def __init__(
        self, root: str, *, cache_dir: Path, cache_bytes: int, retries: Retries | None = None
    ) -> None:
        """Sends nothing yet. Raises UserError for an address that cannot be one of a directory."""
        self._root = _checked_root(root)
        self._cache = FileCache(cache_dir, cache_bytes)
        self._retries = retries or Retries()
        self._expected: dict[str, _FileContent] = {}
        self._counts = shared(np.zeros((_SLOTS, len(RemoteStatistics._fields)), np.int64))
        self._process: _Process | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_process": None}

    @property
    def root(self) -> str:
        """The address of the directory, without a slash at its end."""
        return self._root

    @property
    def statistics(self) -> RemoteStatistics:
        """Counts so far."""
        return RemoteStatistics(*self._counts.numpy().sum(axis=0).tolist())

    def register_checksums(self, files: Mapping[str, tuple[int, str]]) -> None:
        """What the manifest says of files: size, and SHA-256 or CRC-32 in hexadecimal digits.

        To be called before the store goes to other processes. Raises UserError for another digest.
        """
        for name, (size, digest) in files.items():
            if not _DIGEST.fullmatch(digest):
                raise UserError(
                    f"{self._root}: the digest of {name!r} is {digest!r}; expected the 64"
                    " hexadecimal digits of SHA-256 or the 8 of CRC-32, in lower case"
                )
            self._expected[name] = _FileContent(size, digest, digest)

    def names(self) -> list[str]:
        """The files directly inside, sorted; raises UserError over HTTP, which cannot list."""
        return sorted(self._local().directory.sizes())

    def sizes(self) -> dict[str, int] | None:
        """The bytes of each file directly inside; None over HTTP, which cannot list."""
        return None if self._root.startswith(HTTP) else self._local().directory.sizes()

    def versions(self) -> dict[str, str] | None:
        """Sizes with ETags or times of writing; None over HTTP, which cannot list."""
        if self._root.startswith(HTTP):
            return None
        listed = self._local().directory.listed()
        return {name: found.version for name, found in listed.items()}

    def size(self, name: str) -> int:
        """Bytes of a file; raises UserError where there is none, RunError when out of reach."""
        if (expected := self._expected.get(name)) is not None:
            return expected.size
        address = self._local().directory.address(name)
        kept = self._cache.find(address)
        try:
            return self._content(name, attempts=2 if kept else None).size
        except UnreachableError:
            if kept is None:
                raise
            return kept.length

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """At most `length` bytes from `offset`, fewer at the end of the file.

        Raises UserError where there is no such file, access is refused or the cache is too small
        for it, and RunError when it cannot be fetched or its content is not what was expected.
        """
        return self._file(name).read(offset, length)

    def fetch(self, name: str) -> None:
        """Have a file in the cache, as the one used last; raises as `read` does."""
        self._fetched(name)

    def write(self, name: str, content: bytes) -> bool:
        """Whether the file could be written; False where the store is for reading."""
        local = self._local()
        with local.lock:
            local.files.drop(name)
            local.versions.pop(name, None)
        return local.directory.write(name, content)

    def _local(self) -> "_Process":
        """What belongs to this process alone."""
        if self._process is None or self._process.pid != getpid():
            directory = RemoteDirectory(self._root, self._retries, partial(self._count, "retries"))
            # The parent's is kept: its sessions would end with an error in another process.
            self._process = _Process(getpid(), directory, self._process)
        return self._process

    def _count(self, what: str, number: int = 1) -> None:
        column = RemoteStatistics._fields.index(what)
        # Of a thread: two that add to one number at once lose one of both.
        self._counts.numpy()[threading.get_native_id() % _SLOTS, column] += number

    def _file(self, name: str) -> CachedFile:
        local = self._local()
        with local.lock:
            file = local.files.get(name)
        if file is None or not file.is_unaltered():
            file = self._fetched(name)
        with local.lock:
            local.files.put(name, file)
        return file

    def _fetched(self, name: str) -> CachedFile:
        address = self._local().directory.address(name)
        kept = None if name in self._expected else self._cache.find(address)
        try:
            content = self._content(name, attempts=2 if kept else None)
        except UnreachableError:
            if kept is None:
                raise
            self._count("unverified")
            return kept
        fetch = partial(self._download, name, content)
        for _ in range(_DOWNLOADS):
            try:
                return self._cache.open(address, content.version, content.size, fetch)
            except _MismatchError:
                self._count("mismatches")
        raise RunError(
            f"{address}: in {_DOWNLOADS} downloads the content did not have the checksum"
            f" {content.digest} that the manifest gives; the file was damaged or replaced there:"
            " write it again, or the manifest"
        )

    def _content(self, name: str, attempts: int | None = None) -> "_FileContent":
        if (expected := self._expected.get(name)) is not None:
            return expected
        local = self._local()
        with local.lock:
            content = local.versions.get(name)
        if content is None:
            found = local.directory.version(name, attempts)
            content = _FileContent(found.size, found.version, None)
            with local.lock:
                local.versions[name] = content
        return content

    def _download(self, name: str, content: "_FileContent") -> Iterator[bytes]:
        directory = self._local().directory
        sha256, crc32, start = hashlib.sha256(), 0, 0
        while start < content.size:
            end = min(start + PART, content.size)
            part = directory.read(name, start, end, content.size)
            sha256.update(part)
            crc32 = zlib.crc32(part, crc32)
            start += len(part)
            self._count("bytes", len(part))
            yield part
        if content.digest not in (None, sha256.hexdigest(), f"{crc32:08x}"):
            raise _MismatchError
        self._count("files")


def open_store(root: str, *, cache_dir: Path, cache_gb: float) -> Store:
    """Open the directory `root`, a path or an address such as `s3://bucket/directory`.

    Files from an address are kept in `cache_dir`, up to `cache_gb` (10^9 bytes).
    """
    if "://" not in root:
        return LocalStore(root)
    return RemoteStore(root, cache_dir=cache_dir, cache_bytes=int(cache_gb * 1e9))


@dataclass(frozen=True)
class _FileContent:
    """What a file should be: `version` names its content, `digest` is its checksum if known."""

    size: int
    version: str
    digest: str | None


class _MismatchError(Exception):
    """The content of a file is not the expected one."""


@dataclass
class _Process:
    """Connections and open files of one process."""

    pid: int
    directory: RemoteDirectory
    parent: "_Process | None"
    lock: threading.Lock = field(default_factory=threading.Lock)
    files: RecentlyUsed[str, CachedFile] = field(default_factory=lambda: RecentlyUsed(_OPEN_FILES))
    versions: dict[str, _FileContent] = field(default_factory=dict)


def _checked_root(root: str) -> str:
    try:
        parts = urlsplit(root)
        password = parts.password
    except ValueError as error:
        raise UserError(f"a remote address is malformed: {error}") from error
    if password is not None or (parts.scheme in HTTP and "@" in parts.netloc):
        raise UserError(
            f"an address of {parts.hostname} holds a password or a user; leave them to the"
            " environment or ~/.netrc, as addresses are printed"
        )
    if not parts.scheme or "://" not in root:
        raise UserError(f"{root!r} is not a remote address; expected s3://…, gs://…, https://…")
    if parts.query or parts.fragment:
        raise UserError(
            f"{parts.scheme}://{parts.netloc}{parts.path}: an address of a directory has no"
            " '?…' or '#…', as names of files are put behind it"
        )
    return root.rstrip("/")

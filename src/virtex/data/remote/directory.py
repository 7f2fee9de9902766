"""One remote directory through fsspec: requests that are retried if that may help.

Each protocol's package finds its credentials itself; no message contains them. Objects belong to
the process that created them, since fsspec's event loop does not survive a fork.
"""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import getpid
from typing import Any

from virtex.data.remote.failures import describe, is_permanent, refusal
from virtex.data.shards.store import FileVersion
from virtex.errors import RunError, UserError

HTTP = ("http", "https")
_SILENT_SECONDS = 10.0
PART = 8 << 20  # bytes that a request reads at most
_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "Last-Modified", "LastModified", "mtime", "created")


@dataclass(frozen=True)
class Retries:
    """How often a request is tried and how long it may take.

    An attempt takes at most `attempt_seconds` for each 8 MiB that it sends. One that reads gets at
    most 8 MiB, or a whole file if the server does not support ranges. No attempt starts
    `total_seconds` after the first. Pauses double from `first_pause` to `longest_pause`, with
    jitter by `seed`, process and address, so that a thousand workers that failed together do not
    retry together.
    """

    attempts: int = 8
    attempt_seconds: float = 60.0
    total_seconds: float = 600.0
    first_pause: float = 0.5
    longest_pause: float = 30.0
    seed: int = 0

    def pause(self, attempt: int, address: str) -> float:
        """Seconds to wait after the failed attempt (1 …)."""
        source = f"{self.seed} {socket.gethostname()} {getpid()} {address} {attempt}"
        share = random.Random(source).uniform(0.5, 1)
        return share * min(self.longest_pause, self.first_pause * 2.0 ** (attempt - 1))


def ignore_message(message: str) -> None:
    """Do nothing."""


class UnreachableError(RunError):
    """A request failed in every attempt, but a later one may succeed."""


class RefusedError(UserError):
    """A request that would fail however often it is tried."""


class RemoteDirectory:
    """The files directly inside `root`, an address that fsspec knows."""

    def __init__(
        self,
        root: str,
        retries: Retries,
        on_retry: Callable[[], None],
        notify: Callable[[str], None] = ignore_message,
    ) -> None:
        """Sends nothing yet; `on_retry` is called before an attempt that is not the first.

        `notify` is called with a line for the user if the first request is not answered soon.
        """
        self.root = root
        self._protocol = root.partition("://")[0]
        self._retries = retries
        self._on_retry = on_retry
        self._notify = notify
        self._has_answered = False
        self._filesystem: Any = None

    def address(self, name: str) -> str:
        """The full address of a file; raises UserError for a name that leads elsewhere."""
        if name in ("", ".", "..") or any(sign in name for sign in "/\\?#\0"):
            raise UserError(f"{name!r} is not the name of a file directly inside {self.root}")
        return f"{self.root}/{name}"

    def list_files(self) -> dict[str, FileVersion] | None:
        """All files, by name; a version holds the ETag or the time. None over HTTP."""
        if self._protocol in HTTP:
            return None
        entries = self._request(self.root, "ls", detail=True)
        files = [entry for entry in entries if entry["type"] == "file"]
        return {file["name"].rstrip("/").rpartition("/")[2]: _version(file) for file in files}

    def version(self, name: str, attempts: int | None = None) -> FileVersion:
        """Size and version of a file, with at most `attempts` if these are given."""
        address = self.address(name)
        info = self._request(address, "info", attempts=attempts)
        if info.get("size") is None:
            raise RefusedError(f"{address}: the server does not send the size (Content-Length)")
        return _version(info)

    def read(self, name: str, start: int, end: int, size: int) -> bytes:
        """Bytes `start` … `end` of a file of `size` bytes.

        All of it if the first part is requested and the server does not support ranges.
        """
        whole = {size} if start == 0 else set()
        lengths = whole | {end - start}
        address = self.address(name)
        return bytes(self._request(address, "cat_file", lengths=lengths, start=start, end=end))

    def write(self, name: str, content: bytes) -> bool:
        """Write a file; False if the directory is read-only."""
        if self._protocol in HTTP:
            return False
        try:
            self._request(self.address(name), "pipe_file", content)
        except RefusedError as error:
            if isinstance(error.__cause__, PermissionError | NotImplementedError):
                return False
            raise
        return True

    def _request(
        self,
        address: str,
        method: str,
        *content: bytes,
        lengths: set[int] | None = None,
        attempts: int | None = None,
        **options: object,
    ) -> Any:
        """The answer of `method`; one of a length that is not in `lengths` is a failure."""
        begun = time.monotonic()
        most = attempts or self._retries.attempts
        attempt = 0
        while True:
            attempt += 1
            try:
                with self._noticed_silence(address):
                    answer = self._attempt(address, method, content, options)
                self._has_answered = True
                if lengths is None or len(answer) in lengths:
                    return answer
                raise EOFError(f"{len(answer)} bytes came instead of {min(lengths)}")
            except UserError:
                raise
            except Exception as error:  # noqa: BLE001 - each protocol's package has its own
                cause = self._cause(error)
            if is_permanent(cause):
                raise RefusedError(f"{address}: {refusal(cause)}") from cause
            seconds = time.monotonic() - begun
            if attempt >= most or seconds > self._retries.total_seconds:
                raise UnreachableError(
                    f"{address}: gave up after {attempt} attempts in {seconds:.0f} s; the last one"
                    f" failed with {describe(cause)}"
                ) from cause
            self._on_retry()
            time.sleep(self._retries.pause(attempt, address))

    @contextmanager
    def _noticed_silence(self, address: str) -> Iterator[None]:
        """Tell the user if nothing was ever answered, and no answer comes soon in this context."""
        if self._has_answered:
            yield
            return
        line = (
            f"{address}: no answer for {_SILENT_SECONDS:g} s; check that the server runs and can be"
            f" reached from here (it is asked for up to {self._retries.total_seconds:g} s)"
        )
        timer = threading.Timer(_SILENT_SECONDS, self._notify, (line,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _attempt(
        self, address: str, method: str, content: tuple[bytes, ...], options: dict[str, object]
    ) -> Any:
        if self._filesystem is None:
            self._filesystem = _open_filesystem(self.root, self._protocol)
        filesystem = self._filesystem
        path = filesystem._strip_protocol(address)
        if not filesystem.async_impl:  # such as memory://; these have their own time limits
            return getattr(filesystem, method)(path, *content, **options)
        from fsspec.asyn import sync

        coroutine = getattr(filesystem, f"_{method}")
        parts = 1 + sum(map(len, content)) // PART
        limit = self._retries.attempt_seconds * parts
        return sync(filesystem.loop, coroutine, path, *content, timeout=limit, **options)

    def _cause(self, error: Exception) -> BaseException:
        """The error, or its cause: fsspec reports "not found" if it cannot get a URL's size."""
        hidden = self._protocol in HTTP and isinstance(error, FileNotFoundError)
        return error.__cause__ if hidden and error.__cause__ is not None else error


def _version(info: Mapping[str, Any]) -> FileVersion:
    known = next((str(info[key]) for key in _VERSION_FIELDS if info.get(key)), "")
    return FileVersion(int(info["size"]), f"{info['size']} {known}")


def _open_filesystem(root: str, protocol: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise UserError(
            f"{root}: remote data need further packages: pip install 'virtex-pretraining[remote]'"
        ) from error
    options: dict[str, object] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in HTTP:
        # Use proxies and ~/.netrc; ranges of compressed content would not be those of the file.
        options |= {
            "client_kwargs": {"trust_env": True},
            "headers": {"Accept-Encoding": "identity"},
        }
    if protocol in ("s3", "s3a"):
        configured = fsspec.config.conf.get(protocol, {}).get("config_kwargs", {})
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, **configured}
    try:
        filesystem = fsspec.get_filesystem_class(protocol)(**options)
    except ImportError as error:
        raise UserError(
            f"{root}: {error}. What s3:// and https:// need is installed by "
            "pip install 'virtex-pretraining[remote]'"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{root}: {error}; expected s3://…, gs://…, https://… or the like"
        ) from error
    if protocol in ("s3", "s3a"):
        filesystem.retries = 1  # this module retries, and counts it
    return filesystem

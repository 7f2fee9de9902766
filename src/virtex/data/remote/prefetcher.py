"""Fetching shards before they are read, in a process of its own.

Not in a thread, as loader workers are forked, which is unsafe beside threads. Every process of a
job has one; those of a machine share the work, as the cache fetches each file once.
"""

import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from multiprocessing import resource_tracker
from threading import Condition, Lock, Thread
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from virtex.data.remote.shards import Files, RemoteSplits
from virtex.data.remote.store import RemoteStore
from virtex.errors import UserError

_CONCURRENT_FETCHES = 4
_RETRY_SECONDS = 60.0
"""When a file that could not be fetched is tried again, and how often retries are logged."""
_POLL_SECONDS = 0.5
_LOG_SECONDS = 30.0
_END_SECONDS = 5.0


class Logger(Protocol):
    """Takes lines for the user, such as `RunLogger`."""

    def info(self, message: str, /) -> None: ...


class Watchdog(Protocol):
    """Takes the phase of this process."""

    def report(self, phase: str, /) -> None: ...


class StopRequest(Protocol):
    """Whether a signal asked this process to stop."""

    def check(self, message: str, /) -> None:
        """Raise an error with this message if one did."""
        ...


class Prefetcher:
    """Fetches remote shards for training: `wait_for` waits until all are cached, `prefetch` not.

    A file that cannot be fetched is left to its reader, which then raises the error. The process
    starts with the first request; `close` ends it, and so does the end of this process.
    """

    def __init__(
        self, splits: RemoteSplits, *, logger: Logger, watchdog: Watchdog, stop_request: StopRequest
    ) -> None:
        """`stop_request` is checked while the first window is waited for, before any work."""
        self._splits = splits
        self._logger, self._watchdog, self._stop_request = logger, watchdog, stop_request
        self._requests = 0
        self._is_first = True
        self._retries, self._retries_logged = 0, -math.inf
        self._process: Any = None
        self._connection: Any = None

    @property
    def sources(self) -> tuple[int, ...]:
        """The numbers of the sources that are remote."""
        return tuple(source.number for source in self._splits.sources)

    def wait_for(self, shards: npt.NDArray[np.int64]) -> None:
        size = f"{len(shards)} shards, {self._splits.bytes(shards) / 1e9:.3f} GB,"
        start = time.monotonic()
        if self._is_first:
            self._logger.info(
                f"fetching {size} of the first window; training starts when they are cached"
            )
        fetched = self._splits.fetched_for_training
        error = self._wait(self._request(shards))
        seconds = time.monotonic() - start
        if error is not None:
            self._logger.info(
                f"fetching ahead failed, so missing files are fetched when they are read: {error}"
            )
        elif self._is_first or seconds > 2 * _POLL_SECONDS:
            fetched = self._splits.fetched_for_training - fetched
            self._logger.info(
                f"waited {seconds:.1f} s for {size} of which {fetched / 1e9:.3f} were fetched"
            )
        self._is_first = False

    def prefetch(self, shards: npt.NDArray[np.int64]) -> None:
        self._request(shards)

    def log_retries(self) -> None:
        """Log the statistics if requests were repeated since, at most once a minute."""
        statistics = self._splits.statistics
        now = time.monotonic()
        if statistics.retries > self._retries and now - self._retries_logged > _RETRY_SECONDS:
            self._retries, self._retries_logged = statistics.retries, now
            self._logger.info(f"data: {statistics}")

    def close(self) -> None:
        """End the process, whatever it is fetching."""
        if self._process is None:
            return
        self._connection.close()
        self._process.terminate()
        self._process.join(_END_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other_end = context.Pipe()
        arguments = (self._splits.stores, other_end)
        self._process = context.Process(target=_fetch_ahead, args=arguments, daemon=True)
        # A terminal's Ctrl-C goes to all processes; this one ends with its parent. The tracker is
        # started before, as its start lets the signal through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        other_end.close()

    def _request(self, shards: npt.NDArray[np.int64]) -> Files:
        """Request shards in place of all that were requested before; returns their files."""
        if self._process is None:
            self._start()
        files = self._splits.files(shards)
        self._requests += 1
        with suppress(OSError):  # the process has ended, which `_wait` finds
            self._connection.send((self._requests, files))
        return files

    def _wait(self, files: Files) -> str | None:
        """Return None when all files are cached, or else the reason why one is not."""
        missing, fetched, logged = set(files), -1, time.monotonic()
        while missing:
            if self._is_first:
                self._stop_request.check(
                    "stopped by a signal while shards were fetched, before an iteration"
                )
            try:
                answer = self._connection.recv() if self._connection.poll(_POLL_SECONDS) else None
            except (EOFError, OSError):
                return "the process that does it has ended"
            if answer is not None and answer[0] == self._requests:
                _, key, error = answer
                if error is not None:
                    return str(error)
                missing.discard(key)
            phase = f"waiting for {len(missing)} of {len(files)} files of shards to be fetched"
            # Only on progress, so that the watchdog finds a run that is stuck.
            if answer is not None or self._splits.fetched_for_training > fetched:
                fetched = self._splits.fetched_for_training
                self._watchdog.report(phase)
            if time.monotonic() - logged > _LOG_SECONDS:
                logged = time.monotonic()
                self._logger.info(f"{phase}, {self._splits.statistics}")
        return None


class _Queue:
    """The files of the latest request that no thread is fetching yet."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._request = 0
        self._files: Files = {}

    def replace(self, request: int, files: Files) -> None:
        # Each process in an order of its own, so that those of one machine share the work.
        order = random.Random(os.getpid()).sample(sorted(files), len(files))
        with self._changed:
            self._request, self._files = request, {key: files[key] for key in order}
            self._changed.notify_all()

    def take(self) -> tuple[int, Files]:
        """The next file, as soon as there is one, and the number of its request."""
        with self._changed:
            self._changed.wait_for(lambda: self._files)
            key = next(iter(self._files))
            return self._request, {key: self._files.pop(key)}

    def put_back(self, request: int, file: Files) -> None:
        """Return a file after a pause, unless there is another request meanwhile."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._request != request, _RETRY_SECONDS):
                self._files |= file
                self._changed.notify_all()


def _fetch_ahead(stores: Sequence[RemoteStore], connection: Any) -> None:
    """Fetch what is requested, until the other end of the connection is gone."""
    queue, sending = _Queue(), Lock()
    for _ in range(_CONCURRENT_FETCHES):
        # A copy each, as a store is not for two threads.
        arguments = ([copy(store) for store in stores], queue, connection, sending)
        Thread(target=_fetch_files, args=arguments, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            queue.replace(*connection.recv())
    os._exit(0)  # fsspec's threads may be in the middle of something


def _fetch_files(
    stores: Sequence[RemoteStore], queue: _Queue, connection: Any, sending: Lock
) -> None:
    while True:
        request, file = queue.take()
        (((store, name), content),) = file.items()
        error = None
        try:
            stores[store].register_checksums({name: content})
            stores[store].fetch(name)
        except UserError as caught:
            error = str(caught)
        with sending, suppress(OSError):
            connection.send((request, (store, name), error))
        if error is not None:
            queue.put_back(request, file)

"""Fetching shards before they are read, in a process of its own.

Not in a thread: loader workers are forked, which goes badly beside threads. Every process of a job
has one of these; those of a machine share the work, as the cache fetches each file once.
"""

import math
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from copy import copy
from multiprocessing import resource_tracker
from threading import Condition, Lock, Thread
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from virtex.data.remote.shards import Files, RemoteShards, RemoteSplits
from virtex.data.remote.store import RemoteStore
from virtex.errors import UserError

A = TypeVar("A")
Say = Callable[[str], None]

_FETCHES = 4  # at once
_AGAIN_SECONDS = 60.0
_LOOK_SECONDS = 0.5
_TELL_SECONDS = 30.0
_END_SECONDS = 5.0


class Prefetcher:
    """Fetches remote shards: `wait_for` waits until all are in the cache, `prefetch` does not.

    What cannot be fetched is left to whoever reads it, and so is the error. The process starts when
    something is needed; `close` ends it, and so does the end of this process.
    """

    def __init__(
        self, shards: RemoteShards, *, say: Say, reached: Say, check_stop: Callable[[], None]
    ) -> None:
        """`say` gets lines for a person, `reached` what is waited for, when that gets on.

        `check_stop` may raise while the first window is waited for, when nothing is lost by it.
        """
        self._shards = shards
        self._say, self._reached, self._check_stop = say, reached, check_stop
        self._requests = 0
        self._is_first = True
        self._process: Any = None
        self._connection: Any = None

    def wait_for(self, shards: npt.NDArray[np.int64]) -> None:
        size = f"{len(shards)} shards, {self._shards.bytes[shards].sum() / 1e9:.3f} GB,"
        begun = time.monotonic()
        if self._is_first:
            self._say(f"fetching {size} of the first window; training starts when they are here")
        fetched = self._fetched
        error = self._wait(self._request(shards))
        seconds = time.monotonic() - begun
        if error is not None:
            self._say(f"fetching ahead failed, so what is missing is fetched when read: {error}")
        elif self._is_first or seconds > 2 * _LOOK_SECONDS:
            fetched = self._fetched - fetched
            self._say(
                f"waited {seconds:.1f} s for {size} of which {fetched / 1e9:.3f} were fetched"
            )
        self._is_first = False

    def prefetch(self, shards: npt.NDArray[np.int64]) -> None:
        self._request(shards)

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
        self._connection, theirs = context.Pipe()
        arguments = (self._shards.store, theirs)
        self._process = context.Process(target=_fetch_ahead, args=arguments, daemon=True)
        # A terminal's Ctrl-C goes to all processes; this one ends with its parent. The tracker is
        # started before, as its start lets the signal through again.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def _request(self, shards: npt.NDArray[np.int64]) -> Files:
        """Ask for shards in place of all that was asked for before; returns their files."""
        if self._process is None:
            self._start()
        files = self._shards.files(shards)
        self._requests += 1
        with suppress(OSError):  # of a process that has ended, which `_wait` finds
            self._connection.send((self._requests, files))
        return files

    def _wait(self, files: Files) -> str | None:
        """Return when all are here, or else why not."""
        missing, fetched, reported = set(files), -1, time.monotonic()
        while missing:
            if self._is_first:
                self._check_stop()
            try:
                answer = self._connection.recv() if self._connection.poll(_LOOK_SECONDS) else None
            except (EOFError, OSError):
                return "the process that does it has ended"
            if answer is not None and answer[0] == self._requests:
                _, name, error = answer
                if error is not None:
                    return str(error)
                missing.discard(name)
            left = f"waiting for {len(missing)} of {len(files)} files of shards to be fetched"
            # Not where nothing comes, so that a run that is stuck is found.
            if answer is not None or self._fetched > fetched:
                fetched = self._fetched
                self._reached(left)
            if time.monotonic() - reported > _TELL_SECONDS:
                reported = time.monotonic()
                self._say(f"{left}, {self._shards.store.statistics}")
        return None

    @property
    def _fetched(self) -> int:
        """Bytes, by this process and those that it started."""
        return self._shards.store.statistics.bytes


def report_retries(
    batches: Iterator[A], prefetcher: Prefetcher, splits: RemoteSplits, say: Say
) -> Iterator[A]:
    """`batches`, with a line where requests had to be made again, at most one a minute.

    Ends the prefetcher when they end.
    """
    reported, retries = -math.inf, 0
    with closing(prefetcher):
        for batch in batches:
            now = splits.statistics
            if now.retries > retries and time.monotonic() - reported > _AGAIN_SECONDS:
                reported, retries = time.monotonic(), now.retries
                say(f"data: {now}")
            yield batch


class _Requested:
    """The files of the latest request that nobody is fetching yet."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._number = 0
        self._files: Files = {}

    def replace(self, number: int, files: Files) -> None:
        # Each process in an order of its own, so that those of one machine share the work.
        order = random.Random(os.getpid()).sample(sorted(files), len(files))
        with self._changed:
            self._number, self._files = number, {name: files[name] for name in order}
            self._changed.notify_all()

    def take(self) -> tuple[int, Files]:
        """The next one, as soon as there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._files)
            name = next(iter(self._files))
            return self._number, {name: self._files.pop(name)}

    def give_back(self, number: int, file: Files) -> None:
        """After a while, unless there is another request meanwhile."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._number != number, _AGAIN_SECONDS):
                self._files |= file
                self._changed.notify_all()


def _fetch_ahead(store: RemoteStore, connection: Any) -> None:
    """The process's work, until the other end is gone."""
    requested, answering = _Requested(), Lock()
    for _ in range(_FETCHES):
        # A copy each, as a store is not for two threads.
        arguments = (copy(store), requested, connection, answering)
        Thread(target=_fetch_files, args=arguments, daemon=True).start()
    with suppress(EOFError, OSError):
        while True:
            requested.replace(*connection.recv())
    os._exit(0)  # fsspec's threads may be in the middle of something


def _fetch_files(
    store: RemoteStore, requested: _Requested, connection: Any, answering: Lock
) -> None:
    while True:
        number, file = requested.take()
        name, error = next(iter(file)), None
        try:
            store.register_checksums(file)
            store.fetch(name)
        except UserError as caught:
            error = str(caught)
        with answering, suppress(OSError):
            connection.send((number, name, error))
        if error is not None:
            requested.give_back(number, file)

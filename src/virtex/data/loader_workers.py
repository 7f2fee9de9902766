"""The loader's worker processes: how each one starts, and how all of them end.

Convention: the signals that ask a job to stop reach its workers too, and they ignore them, because
the main process ends its workers. If that process ends in any other way, they end at once.
"""

import atexit
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader

from virtex.errors import UserError, interrupts_held

A = TypeVar("A")

_GRACE_SECONDS = 2.0
"""How long a worker that is no longer needed may take to finish what it is doing."""
_POLL_SECONDS = 0.5
_EXIT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def worker_start() -> Callable[[int], None]:
    """The function that a worker of this process calls first, with its number."""
    return partial(_start, os.getpid())


class WorkerTimeout:
    """A limit to the seconds that workers may take while a batch is waited for.

    Workers that take longer are killed, as nothing else ends a wait for a stopped one: torch reads
    what a worker has started to send without a limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._expired = False
        self._waiting_since: float | None = None
        self._ended = threading.Event()
        self._key_error: BaseException | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in this context."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waiting_since = None

    def keys(self, keys: Iterable[A], on_start: Callable[[], None]) -> Iterator[A]:
        """`keys`, with the time they take not counted; calls `on_start` before the first.

        An error is kept for `check`: raised here, it could keep workers alive that have started.
        """

        def after_start() -> Iterator[A]:
            on_start()
            yield from keys

        iterator = after_start()
        while True:
            was_waiting, self._waiting_since = self._waiting_since is not None, None
            try:
                key = next(iterator)
            except StopIteration:
                return
            except (UserError, OSError, RuntimeError, KeyboardInterrupt) as error:
                self._key_error = error
                return
            finally:
                self._waiting_since = time.monotonic() if was_waiting else None
            yield key

    def check(self) -> None:
        """Raise the error of `keys`, if there was one."""
        if self._key_error is not None:
            raise self._key_error

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Raise one error in this context if workers were killed, whatever error followed."""
        try:
            yield
        except Exception as error:
            if not self._expired:
                raise
            raise RuntimeError(f"DataLoader timed out after {self._seconds} s") from error
        finally:
            self._ended.set()

    def start(self, workers: Sequence[BaseProcess]) -> None:
        """Apply the limit to `workers`."""
        threading.Thread(target=self._watch, args=(workers,), daemon=True).start()

    def _watch(self, workers: Sequence[BaseProcess]) -> None:
        while not self._ended.wait(min(_POLL_SECONDS, self._seconds / 4)):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._seconds:
                self._expired = True
                for worker in workers:
                    worker.kill()
                return


@contextmanager
def started_workers(loader: "DataLoader[A]", starting: ExitStack) -> Iterator[Iterator[A]]:
    """The iterator of a DataLoader, whose workers end with this context in any case.

    They finish, or are killed after a short while: torch alone would wait 5 s for each and then
    send SIGTERM, which they ignore and which does not reach a stopped one. A keyboard interrupt is
    held until `starting` is closed, here or by the sampler when the first key is asked for.
    """
    before = multiprocessing.active_children()
    try:
        with starting:
            # A worker that does not ignore it yet would end with a traceback.
            starting.enter_context(interrupts_held())
            batches: Any = iter(loader)
    except BaseException:
        _kill([c for c in multiprocessing.active_children() if c not in before])
        raise
    # If this is never closed, as after an error in a notebook or script, multiprocessing would
    # send SIGTERM at the end of the process, and wait without a limit.
    kill = partial(_kill, workers_of(batches))
    atexit.register(kill)
    try:
        yield batches
    finally:
        _end(batches)
        atexit.unregister(kill)


def workers_of(batches: Any) -> Sequence[BaseProcess]:
    """The workers of a DataLoader's iterator; none if examples are loaded in this process."""
    workers: Sequence[BaseProcess] = getattr(batches, "_workers", [])
    return workers


@contextmanager
def _deaths_expected() -> Iterator[None]:
    """Keep torch from raising an error in the main thread when a worker ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _end(batches: Any) -> None:
    workers = workers_of(batches)
    if not workers or sys.is_finalizing():  # when they have been killed, and no thread can start
        return
    killer = threading.Timer(_GRACE_SECONDS, _kill, (workers,))
    killer.daemon = True
    killer.start()
    with _deaths_expected():
        batches._shutdown_workers()
    killer.cancel()
    _remove_left_memory(workers)


def _kill(workers: Sequence[BaseProcess]) -> None:
    with _deaths_expected():
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(_GRACE_SECONDS)
    _remove_left_memory(workers)


def _remove_left_memory(workers: Sequence[BaseProcess]) -> None:
    """Remove shared memory that killed workers were creating; torch names it by process id."""
    for worker in workers:
        if worker.exitcode:
            for path in Path("/dev/shm").glob(f"torch_{worker.pid}_*"):
                path.unlink(missing_ok=True)


def _start(parent: int, _: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent(parent)
    # A collection writes to the header of every object and so copies the pages shared with the main
    # process, 40 MB a worker. Objects that exist at the start are not collected instead.
    gc.freeze()
    # One thread each: the workers are the parallelism.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    sys.excepthook = _report_unless_disconnected


def _end_with_parent(parent: int) -> None:
    """Let this process end when `parent` ends, even if it just has."""
    # SIGKILL would leave shared memory that is being created. SIGCONT reaches a stopped worker too;
    # if only the thread that started the worker has ended, it does nothing.
    signal.signal(signal.SIGCONT, lambda *_: _exit_without(parent))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    threading.Thread(target=_watch_parent, args=(parent,), name="parent", daemon=True).start()


def _watch_parent(parent: int) -> None:
    """Wake the main thread when the parent has ended: another may have got the kernel's signal."""
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _EXIT_SECONDS)  # SIGALRM ends a process that hangs
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGCONT)


def _exit_without(parent: int) -> None:
    if os.getppid() != parent:
        sys.exit(1)


def _report_unless_disconnected(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Ignore the errors of the thread that sends batches when the main process has ended."""
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, traceback)

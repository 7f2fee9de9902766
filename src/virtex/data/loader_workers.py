"""The loader's worker processes: how each one begins, and how all of them end.

Convention: the signals that ask a job to stop reach its workers too, and they ignore them, because
the main process ends its workers. When that process has ended, by whatever, they end at once.
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

from virtex.errors import UserError

A = TypeVar("A")

_GRACE_SECONDS = 2.0
"""How long a worker that is no longer needed may take to finish what it is doing."""
_LOOK_SECONDS = 0.5
_EXIT_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def worker_start() -> Callable[[int], None]:
    """What a worker of this process does first; its argument is the worker's number."""
    return partial(_start, os.getpid())


class Patience:
    """A limit to the seconds that workers may take while a batch is waited for.

    Workers that take longer are killed, as nothing else ends a wait for one that is stopped: torch
    reads what it has begun to hand over without a limit. `passed` is then true.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.passed = False
        self._since: float | None = None
        self._ended = threading.Event()
        self._error: BaseException | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """In this context a batch is waited for."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def keys(self, keys: Iterable[A], started: Callable[[], None]) -> Iterator[A]:
        """`keys`, while no worker is waited for; calls `started` before the first.

        An error is kept for `check`: raised here, it could hold on to workers that have begun.
        """

        def after_start() -> Iterator[A]:
            started()
            yield from keys

        iterator = after_start()
        while True:
            before, self._since = self._since, None
            try:
                key = next(iterator)
            except StopIteration:
                return
            except (UserError, OSError, RuntimeError, KeyboardInterrupt) as error:
                self._error = error
                return
            finally:
                self._since = None if before is None else time.monotonic()
            yield key

    def check(self) -> None:
        """Raise the error of the keys, if there was one."""
        if self._error is not None:
            raise self._error

    @contextmanager
    def limited(self) -> Iterator[None]:
        """In this context, where workers were killed for it, that is the error, and no other is."""
        try:
            yield
        except Exception as error:
            if not self.passed:
                raise
            raise RuntimeError(f"DataLoader timed out after {self.seconds} s") from error
        finally:
            self._ended.set()

    def watch(self, workers: Sequence[BaseProcess]) -> None:
        """Let the limit hold for `workers`."""
        look = min(_LOOK_SECONDS, self.seconds / 4)
        threading.Thread(target=self._watch, args=(workers, look), daemon=True).start()

    def _watch(self, workers: Sequence[BaseProcess], look: float) -> None:
        while not self._ended.wait(look):
            since = self._since
            if since is not None and time.monotonic() - since > self.seconds:
                self.passed = True
                for worker in workers:
                    worker.kill()
                return


@contextmanager
def started_workers(loader: "DataLoader[A]", started: ExitStack) -> Iterator[Iterator[A]]:
    """The iterator of a DataLoader, whose workers end with this context, whatever they do.

    They end in good order, or are killed after a short while: torch alone would wait 5 s for each
    and then send SIGTERM, which they ignore and which does not reach one that is stopped. Until
    `started` is closed, which whoever gives out keys does, an interrupt from the keyboard waits.
    """
    before = multiprocessing.active_children()
    try:
        with started:
            # One that came before a worker ignores it would end the worker with a traceback.
            started.enter_context(_interrupts_held())
            batches: Any = iter(loader)
    except BaseException:
        _kill_expectedly([c for c in multiprocessing.active_children() if c not in before])
        raise
    # Where nobody closes this, as after an error in a notebook or script, multiprocessing would
    # send SIGTERM at the end of the process, and wait without a limit.
    kill = partial(_kill_expectedly, workers_of(batches))
    atexit.register(kill)
    try:
        yield batches
    finally:
        _end(batches)
        atexit.unregister(kill)


def workers_of(batches: Any) -> Sequence[BaseProcess]:
    """The workers of a DataLoader's iterator; none where examples are loaded in this process."""
    workers: Sequence[BaseProcess] = getattr(batches, "_workers", [])
    return workers


@contextmanager
def _interrupts_held() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number in held[:1]:
            os.kill(os.getpid(), number)


@contextmanager
def _deaths_expected() -> Iterator[None]:
    """In this context torch does not raise an error, wherever this process is, for a worker's end.

    It can do so in the main thread alone.
    """
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
    if not workers or sys.is_finalizing():  # then they were killed, and no thread can start
        return
    killer = threading.Timer(_GRACE_SECONDS, _kill, (workers,))
    killer.daemon = True
    killer.start()
    with _deaths_expected():
        batches._shutdown_workers()
    killer.cancel()
    _remove_left_memory(workers)


def _kill_expectedly(workers: Sequence[BaseProcess]) -> None:
    with _deaths_expected():
        _kill(workers)


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join(_GRACE_SECONDS)
    _remove_left_memory(workers)


def _remove_left_memory(workers: Sequence[BaseProcess]) -> None:
    """Remove what workers that were killed were just making: torch names it after the process."""
    for worker in workers:
        if worker.exitcode:
            for path in Path("/dev/shm").glob(f"torch_{worker.pid}_*"):
                path.unlink(missing_ok=True)


def _start(parent: int, _: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    _end_with(parent)
    # A collection writes to the header of every object and so copies the pages shared with the main
    # process, 40 MB a worker. What was there at the start stays uncollected instead.
    gc.freeze()
    # One thread each: the workers are the parallelism.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    sys.excepthook = _report_unless_disconnected


def _end_with(parent: int) -> None:
    """Let this process end when `parent` does, also where that was a moment ago."""
    # SIGKILL would leave shared memory that is just being made. This signal reaches a worker that
    # is stopped, too; where only the thread ends that started the worker, it does nothing.
    signal.signal(signal.SIGCONT, lambda *_: _exit_without(parent))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)
    threading.Thread(target=_watch, args=(parent,), name="parent", daemon=True).start()


def _watch(parent: int) -> None:
    """Wake the main thread when the parent has ended: another may have got the kernel's signal."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, _EXIT_SECONDS)  # SIGALRM ends what hangs
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGCONT)


def _exit_without(parent: int) -> None:
    if os.getppid() != parent:
        sys.exit(1)


def _report_unless_disconnected(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """For the thread that hands batches over: a main process that ended is none of its errors."""
    if not isinstance(error, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, traceback)

"""A lock on a run's directory: two jobs that write to it would corrupt each other's files."""

import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from virtex.errors import UserError

LOCK = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[str | None]:
    """Hold the lock of `directory`, which is created. It is released however the process ends.

    Yields a warning if the file system has no locks. Raises `UserError` that names the holder, and
    if the directory is not writable. After an error, a directory that was created here is removed
    unless it holds other files.
    """
    made = not directory.exists()
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"could not create or lock {directory}: {error}; repair the directory, or give another "
            "--serialization-dir"
        ) from error
    warning = None
    try:
        try:
            # Locks the process, not the open file, which loader workers share and may outlive.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise UserError(
                f"another job is writing to {directory}: {holder or 'unknown'}. Wait until it "
                "ends, or give another --serialization-dir"
            ) from None
        except OSError as error:
            warning = (
                f"the file system of {directory} has no locks ({error.strerror}): make sure that "
                "no other job writes to it"
            )
        else:
            os.ftruncate(descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            line = f"process {os.getpid()} on {socket.gethostname()}, since {since}\n"
            os.pwrite(descriptor, line.encode(), 0)
        yield warning
    except BaseException:
        with suppress(OSError):
            if made and list(directory.iterdir()) == [path]:
                path.unlink()
                directory.rmdir()
        raise
    finally:
        os.close(descriptor)

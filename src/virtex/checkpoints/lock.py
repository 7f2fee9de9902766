"""A lock on a run's directory: two jobs that write into it would spoil each other's files."""

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
    """Hold the lock of `directory`, which is made. It ends with the process, however that ends.

    Gives a warning where the file system has no locks. Raises `UserError` that names the
    holder, and where the directory cannot be written to. After an error nothing is left of a
    directory that was made here and holds nothing else.
    """
    made = not directory.exists()
    path = directory / LOCK
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(
            f"could not make or lock {directory}: {error}; mend the directory, or give another "
            "--serialization-dir"
        ) from error
    warning = None
    try:
        try:
            # Of the process, not of the open file, which loader workers share and may outlive.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            holder = os.read(descriptor, 200).decode(errors="replace").strip()
            raise UserError(
                f"another job is writing into {directory}: {holder or 'unknown'}. Wait for its "
                "end, or give another --serialization-dir"
            ) from None
        except OSError as error:
            warning = (
                f"the file system of {directory} has no locks ({error.strerror}): make sure that "
                "no other job writes into it"
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

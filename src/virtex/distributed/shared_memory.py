"""Shared memory, in which loader workers hand over batches: containers have little of it."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtex.errors import RunError, UserError

SHARED_MEMORY = Path("/dev/shm")
_LEAST = 2**20
"""Bytes that are free where it is not full."""
_WORDS = (
    "unable to write to file </torch_",
    "unable to resize file </torch_",
    "unable to open shared memory object",
    "unable to allocate shared memory",
    "shared memory is full",
    "bus error",
)


def free_shared_memory() -> int | None:
    """Bytes; None on a system without the directory."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def too_little(needed: int, free: int) -> str:
    """The message for a machine whose processes need so many bytes together."""
    short = f", {_mb(needed - free)} too little" if free < needed else ""
    return (
        f"{SHARED_MEMORY} (shared memory) has {_mb(free)} free{short}: the loader workers of this "
        f"machine hold up to {_mb(needed)} of batches, beside the annotations. Use fewer "
        "--cpu-workers (0 needs none for batches), a smaller OPTIM.BATCH_SIZE, or more shared "
        "memory (of a container: --shm-size or --ipc=host)"
    )


@contextmanager
def lack_of_shared_memory_as_error(needed: int) -> Iterator[None]:
    """Turn the errors for shared memory that cannot be had into a RunError that says what to do."""
    try:
        yield
    except (RuntimeError, OSError, UserError) as error:
        if not _is_lack(error):
            raise
        reason = str(error).splitlines()[0]
        advice = too_little(needed, free_shared_memory() or 0)
        raise RunError(f"{advice}\n({reason})") from error


def _is_lack(error: Exception) -> bool:
    text = str(error).lower()
    if any(word in text for word in _WORDS):
        return True
    # Of a semaphore that could not be made; a file of the run's would be on another disk.
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
    free = free_shared_memory()
    return full and free is not None and free < _LEAST


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"

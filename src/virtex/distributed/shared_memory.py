"""Shared memory, through which loader workers pass batches; containers often have little of it."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from virtex.errors import RunError, UserError, first_line

SHARED_MEMORY = Path("/dev/shm")
_LEAST = 2**20
"""Shared memory with fewer free bytes than this counts as full."""
_WORDS = (
    "unable to write to file </torch_",
    "unable to resize file </torch_",
    "unable to open shared memory object",
    "unable to allocate shared memory",
    "shared memory is full",
    "bus error",
)


def free_shared_memory() -> int | None:
    """Free bytes of shared memory; None on a system without `/dev/shm`."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def shared_memory_advice(needed: int, free: int) -> str:
    """The message for a machine whose processes together need `needed` bytes."""
    missing = f", {_mb(needed - free)} less than needed" if free < needed else ""
    return (
        f"{SHARED_MEMORY} (shared memory) has {_mb(free)} free{missing}: the loader workers of "
        f"this machine hold up to {_mb(needed)} of batches, besides the annotations. Use fewer "
        "--cpu-workers (0 needs none for batches), a smaller OPTIM.BATCH_SIZE, or more shared "
        "memory (in a container: --shm-size or --ipc=host)"
    )


@contextmanager
def translate_shared_memory_errors(needed: int) -> Iterator[None]:
    """Turn errors from a lack of shared memory into a `RunError` that suggests remedies."""
    try:
        yield
    except (RuntimeError, OSError, UserError) as error:
        if not _is_lack(error):
            raise
        advice = shared_memory_advice(needed, free_shared_memory() or 0)
        raise RunError(f"{advice}\n({first_line(error)})") from error


def _is_lack(error: Exception) -> bool:
    text = str(error).lower()
    if any(word in text for word in _WORDS):
        return True
    # A semaphore could not be created; an error about a file of the run has its name.
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None
    free = free_shared_memory()
    return full and free is not None and free < _LEAST


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"

"""Files that are whole or not there."""

import os
from pathlib import Path

from virtex.errors import UserError


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` to `path`, replacing what was there, whenever the process ends.

    Makes the directories above it. Raises `UserError` where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error

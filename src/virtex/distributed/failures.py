"""The first failure of a job, as its processes report it to each other and to their agent."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist

from virtex.errors import UserError

_LONGEST = 2000
"""The most characters of a message that is sent to others."""


@dataclass(frozen=True)
class Failure:
    """A process that failed: its machine, what it was doing (`phase`) and the error's message."""

    rank: int
    machine: str
    phase: str
    message: str

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.machine} failed ({self.phase}): {self.message}"


def local_failure(rank: int, phase: str, error: BaseException) -> Failure:
    message = str(error)
    if not isinstance(error, UserError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Failure(rank, socket.gethostname(), phase, message[:_LONGEST])


def is_connection_error(error: BaseException) -> bool:
    """Whether an error only reports that the connection to other processes is lost."""
    if isinstance(error, dist.DistError):
        return True
    words = ("Connection closed by peer", "Connection reset", "Broken pipe", "gloo")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def report_to_agent(message: str) -> None:
    """Write the message to the file in which torchrun's agent looks for the first failure."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None or Path(path).exists():
        return
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    text = json.dumps({"message": {"message": message, "extraInfo": extra}})
    with suppress(OSError):  # a full disk may be the failure itself
        Path(path).write_text(text, encoding="utf-8")

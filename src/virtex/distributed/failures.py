"""The first failure of a job, as its processes tell it to each other and to their agent."""

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
"""Characters of a message that are told to others."""


@dataclass(frozen=True)
class Failure:
    """Which process failed, on which machine, what it was doing and what was wrong."""

    rank: int
    machine: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.machine} failed ({self.where}): {self.message}"


def failure_here(rank: int, where: str, error: BaseException) -> Failure:
    """The failure of this process."""
    message = str(error)
    if not isinstance(error, UserError):
        message = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return Failure(rank, socket.gethostname(), where, message[:_LONGEST])


def is_of_the_connection(error: BaseException) -> bool:
    """Whether it says that other processes are lost, and so nothing about this one."""
    if isinstance(error, dist.DistError):
        return True
    words = ("Connection closed by peer", "Connection reset", "Broken pipe", "gloo")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def tell_agent(message: str) -> None:
    """Leave the message where torchrun's agent looks for it, to name the first that failed."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None or Path(path).exists():
        return
    extra = {"py_callstack": message, "timestamp": str(int(time.time()))}
    text = json.dumps({"message": {"message": message, "extraInfo": extra}})
    with suppress(OSError):  # of a full disk, which may be the failure
        Path(path).write_text(text, encoding="utf-8")

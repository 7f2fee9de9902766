"""Rank, world size and rendezvous address, read from the variables that torchrun or srun set."""

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from virtex.distributed.signals import Stopped
from virtex.errors import UserError

_LAST_PORT = 2**16 - 1


@dataclass(frozen=True)
class ProcessInfo:
    """One process among `size`, and the address at which rank 0 can be reached.

    `attempt` counts the restarts of the job. With `agent`, an agent (torchrun's, or our own) has
    started this process; with `agent_serves`, it also serves the store at `host`:`port`, through
    which the processes find each other.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    attempt: int = 0
    agent: bool = False
    agent_serves: bool = False


def read_environment(environment: Mapping[str, str] = os.environ) -> ProcessInfo:
    """This process as the environment describes it; a job of one process if nothing is set.

    Raises `UserError` if a variable is missing or is not a number.
    """
    if "WORLD_SIZE" in environment:
        return _by_torchrun(environment)
    # srun sets these for each task; the shell of sbatch or salloc lacks them.
    if "SLURM_PROCID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", "1") > 1:
        return _by_srun(environment)
    return ProcessInfo()


def _by_torchrun(environment: Mapping[str, str]) -> ProcessInfo:
    size = _number(environment, "WORLD_SIZE", least=1)
    alone = ProcessInfo(
        local_rank=_number(environment, "LOCAL_RANK", "0"),
        attempt=_number(environment, "TORCHELASTIC_RESTART_COUNT", "0"),
        agent="TORCHELASTIC_RUN_ID" in environment,
    )
    if size == 1:
        return alone
    return replace(
        alone,
        rank=_number(environment, "RANK", most=size - 1),
        size=size,
        host=_text(environment, "MASTER_ADDR"),
        port=_number(environment, "MASTER_PORT", least=1, most=_LAST_PORT),
        agent_serves=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _by_srun(environment: Mapping[str, str]) -> ProcessInfo:
    job = _number(environment, "SLURM_JOB_ID", "0")
    step = _number(environment, "SLURM_STEP_ID", "0")
    size = _number(environment, "SLURM_STEP_NUM_TASKS")
    # Equal for all tasks of a step, but different for the next job on the same machine.
    port = str(20000 + (job * 16 + step) % 12000)
    nodes = environment.get("SLURM_STEP_NODELIST") or _text(environment, "SLURM_JOB_NODELIST")
    return ProcessInfo(
        rank=_number(environment, "SLURM_PROCID", most=size - 1),
        size=size,
        local_rank=_number(environment, "SLURM_LOCALID"),
        host=environment.get("MASTER_ADDR") or first_host(nodes),
        port=_number(environment, "MASTER_PORT", port, least=1, most=_LAST_PORT),
        attempt=_number(environment, "SLURM_RESTART_COUNT", "0"),
    )


def wait_for(host: str, port: int, seconds: float, stopping: Callable[[], bool]) -> bool:
    """Whether a server starts to listen at `host`:`port` within `seconds`.

    Raises `Stopped` as soon as `stopping` returns true.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if stopping():
            raise Stopped(f"stopped by a signal while waiting for {host}:{port}")
        try:
            with socket.create_connection((host, port), timeout=5):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def first_host(nodes: str) -> str:
    """The first host of a SLURM node list, such as `gpu[07-09,12],login` → `gpu07`."""
    first = re.match(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes)
    if first is None:
        raise UserError(f"SLURM_STEP_NODELIST is {nodes!r}; expected names such as gpu[01-04]")
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise UserError(
            f"the environment has no {name}; start the processes with torchrun, srun or "
            "--num-gpus-per-machine"
        )
    return value


def _number(
    environment: Mapping[str, str],
    name: str,
    default: str | None = None,
    *,
    least: int = 0,
    most: int = 10**10,
) -> int:
    text = environment.get(name, default) or _text(environment, name)
    if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
        expected = f"from {least} to {most}" if most < 10**10 else f"of at least {least}"
        raise UserError(f"{name} is {text!r} in the environment; expected a number {expected}")
    return int(text)

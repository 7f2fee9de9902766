"""What each task of a job that `virtex slurm` submits does on its node: one process of a run.

submitit starts it, and tells it by a signal that the job's time is nearly over or that the job must
make room. The signal is passed on to `virtex pretrain` as SIGTERM. A run that then ends with status
`STOPPED` has saved its state; the job is queued again, and goes on from there.
"""

import os
import signal
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from virtex.distributed.signals import STOPPED

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


@dataclass(frozen=True)
class PretrainTask:
    """The command of one process; strings alone, so that any node can unpickle it.

    `begun` is a file that is there as soon as there is something for `again` to go on from.
    """

    first: tuple[str, ...]
    again: tuple[str, ...]
    begun: str
    restarted: bool = False

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit starts in place of this after it has queued the job again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(replace(self, restarted=True))

    def __call__(self) -> int:
        """The exit status of the command; under SLURM a failed one is that of this process too."""
        from submitit import JobEnvironment

        job = JobEnvironment()
        # SLURM also starts jobs again by itself, after a node has failed or for a preemption.
        restarted = self.restarted or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        command = self.again if restarted and Path(self.begun).exists() else self.first
        queue_again = signal.getsignal(_preemption())
        status, received = _run(command, os.environ | _launch_variables(job.cluster))
        if status == STOPPED and _preemption() in received and callable(queue_again):
            # submitit's own: in process 0 it ends this process, in the others it returns. Not after
            # SIGTERM alone, which is how SLURM cancels a job.
            queue_again(_preemption(), None)
        if status not in (0, STOPPED) and job.cluster == "slurm":
            raise SystemExit(status)
        return status


def _preemption() -> signal.Signals:
    """The signal by which submitit says that the job must stop; it is set in the same way there."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def _run(command: tuple[str, ...], environment: dict[str, str]) -> tuple[int, set[int]]:
    """The exit status of a command, as a shell tells it, and the signals that came meanwhile."""
    received: set[int] = set()
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        first = not received
        received.add(number)
        if first and process is not None:
            process.terminate()

    signals = (signal.SIGTERM, _preemption())
    before = {number: signal.signal(number, pass_on) for number in signals}
    # SLURM may send the signal to all processes of a job. The command inherits that it is blocked,
    # so that it gets SIGTERM alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, {_preemption()})
    try:
        with subprocess.Popen(command, env=environment) as process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {_preemption()})
            if received:
                process.terminate()
            status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return (status if status >= 0 else 128 - status), received


def _launch_variables(cluster: str) -> dict[str, str]:
    """What tells the processes of a run about each other, where srun does not: torchrun's names."""
    processes = os.environ.get("SUBMITIT_LOCAL_NTASKS", "1")
    if cluster != "local" or processes == "1":
        return {}
    port = 20000 + int(os.environ["SUBMITIT_LOCAL_JOB_ID"]) % 20000
    return {
        "RANK": os.environ["SUBMITIT_LOCAL_GLOBALID"],
        "LOCAL_RANK": os.environ["SUBMITIT_LOCAL_LOCALID"],
        "WORLD_SIZE": processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }

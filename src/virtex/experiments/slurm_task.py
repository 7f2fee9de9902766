"""A task of a job that `virtex slurm` submits: one process of a run on its node.

submitit starts it, and sends a signal when the job's time is nearly over or the job is preempted.
The signal is passed on to `virtex pretrain` as SIGTERM. A run that then ends with status `STOPPED`
has saved its state; the job is requeued and resumes from there.
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
    """The command lines of one process, as strings only, so that any node can unpickle them.

    `first` starts the run, `again` resumes it; `begun` is a file that exists once there is a run to
    resume.
    """

    first: tuple[str, ...]
    again: tuple[str, ...]
    begun: str
    restarted: bool = False

    def checkpoint(self) -> "DelayedSubmission":
        """The task that submitit starts instead of this one after it has requeued the job."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(replace(self, restarted=True))

    def __call__(self) -> int:
        """The exit status of the command; under SLURM this process exits with it if it failed."""
        from submitit import JobEnvironment

        job = JobEnvironment()
        # SLURM also requeues jobs by itself, after a node failure or a preemption.
        restarted = self.restarted or int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0
        command = self.again if restarted and Path(self.begun).exists() else self.first
        queue_again = signal.getsignal(_preemption())
        status, received = _run(command, os.environ | _launch_variables(job.cluster))
        if status == STOPPED and _preemption() in received and callable(queue_again):
            # submitit's handler ends process 0 and returns in the others. SIGTERM alone does not
            # requeue the job, as SLURM cancels jobs with it.
            queue_again(_preemption(), None)
        if status not in (0, STOPPED) and job.cluster == "slurm":
            raise SystemExit(status)
        return status


def _preemption() -> signal.Signals:
    """The signal by which submitit asks the job to stop; submitit reads the same variable."""
    return signal.Signals[f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}"]


def _run(command: tuple[str, ...], environment: dict[str, str]) -> tuple[int, set[int]]:
    """The exit status of a command, as in a shell, and the signals received in the meantime."""
    received: set[int] = set()
    process: subprocess.Popen[bytes] | None = None

    def pass_on(number: int, _: FrameType | None) -> None:
        first = not received
        received.add(number)
        if first and process is not None:
            process.terminate()

    signals = (signal.SIGTERM, _preemption())
    before = {number: signal.signal(number, pass_on) for number in signals}
    # SLURM may send the signal to all processes of a job. The command inherits the blocked signal,
    # so that it receives SIGTERM only.
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
    """torchrun's variables for the processes of a run, which srun would set on a cluster."""
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

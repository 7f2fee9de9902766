"""Jobs whose training step raises, for every number of loader workers, ranks and restarts.

    python -m tools.faults.step_failures

The last rank's optimizer raises in its third step (`tools/faults/failing_step.py`), in every
attempt. A JSON line for each job: its exit status, the seconds from the last error until nothing
of it is alive, whether its output names rank and error, and how many processes and files in shared
memory are left. The lines replace `benchmarks/results/step_failures.jsonl`. Linux only; about 8
minutes.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.faults.failing_step import MESSAGE
from tools.faults.jobs import Job, Launcher, wait
from tools.faults.trials import STEPS, prepare, shared_memory

WORKERS, RANKS, RESTARTS = (0, 1, 2), (1, 2, 4), (0, 1)
LEFT_AFTER = 60.0
"""Seconds after which living processes count as left behind."""


def fail(root: Path, workers: int, ranks: int, restarts: int) -> Mapping[str, Any]:
    """Run one job and return its figures."""
    memory = shared_memory()
    # A job of one process has our agent only with restarts.
    launcher = Launcher("", machines=int(ranks == 1), restarts=restarts, processes=ranks)
    job = Job(root, f"{workers}_{ranks}_{restarts}", launcher, str(root / "shards"))
    job.loader_workers, job.program = workers, "tools.faults.failing_step"
    job.environment = {"FAILING_STEP": "3", "FAILING_RANK": str(ranks - 1)}
    log = job.directory / f"log_rank{ranks - 1}.txt"

    def attempts() -> int:
        return log.read_text(encoding="utf-8").count(MESSAGE + "\n") if log.exists() else 0

    job.start()
    try:
        wait(lambda: attempts() > restarts or job.ended, 240)
        raised = time.monotonic()
        wait(lambda: job.ended, LEFT_AFTER)
        seconds = time.monotonic() - raised
        output = job.output
        return {
            "workers": workers,
            "ranks": ranks,
            "restarts": restarts,
            "status": job.statuses[0],
            "seconds": round(seconds, 1),
            "named": MESSAGE in output and (ranks == 1 or f"rank {ranks - 1}" in output),
            "attempts": attempts(),
            "processes": len(job.processes()),
            "files": len(shared_memory() - memory),
        }
    finally:
        job.end()


def main() -> None:
    with tempfile.TemporaryDirectory() as name, STEPS.open("w", encoding="utf-8") as file:
        root = Path(name)
        prepare(root)
        for case in itertools.product(WORKERS, RANKS, RESTARTS):
            line = json.dumps(fail(root, *case))
            print(line, flush=True)
            file.write(line + "\n")


if __name__ == "__main__":
    main()

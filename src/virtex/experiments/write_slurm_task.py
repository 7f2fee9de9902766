"""The first step of a script of `virtex slurm --dry-run`: write the task for submitit.

Arguments are the file to write, the time limit in minutes, the number of turns, and the fields of
a `PretrainTask` as JSON.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace

from virtex.experiments.slurm_task import PretrainTask


def main(arguments: Sequence[str]) -> None:
    """Write what submitit writes when it submits a job by itself."""
    from submitit.helpers import DelayedSubmission

    path, minutes, turns, fields = arguments
    task = PretrainTask(**json.loads(fields))
    # JSON has lists.
    submission = DelayedSubmission(replace(task, first=tuple(task.first), again=tuple(task.again)))
    submission.set_timeout(int(minutes), int(turns) - 1)
    submission.dump(path)


if __name__ == "__main__":
    main(sys.argv[1:])

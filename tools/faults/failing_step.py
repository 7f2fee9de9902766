"""`virtex` with an optimizer step that fails, to show what users see when training raises.

    FAILING_STEP=3 FAILING_RANK=0 python -m tools.faults.failing_step pretrain --config …

In the process of rank `FAILING_RANK` (default 0) the optimizer's step number `FAILING_STEP`,
counted from the start of the process, raises what `FAILING_ERROR` names: `error` (a RuntimeError,
the default) or `memory` (torch's error of a GPU that is out of memory). Every attempt fails in the
same way, unless `FAILING_ATTEMPT` names the only one that does. Everything else is unchanged.
"""

import os
import sys

from torch import OutOfMemoryError
from torch.optim.optimizer import register_optimizer_step_pre_hook

from virtex.cli import main
from virtex.distributed.environment import read_environment
from virtex.training import run as pretraining
from virtex.training.setup import PretrainOptions

MESSAGE = "raised on purpose by tools.faults.failing_step"
_pretrain = pretraining.pretrain


def pretrain(options: PretrainOptions) -> int:
    """`virtex.training.run.pretrain` with the failing step."""
    process = read_environment()
    attempt = os.environ.get("FAILING_ATTEMPT", str(process.attempt))
    if (process.rank, process.attempt) == (int(os.environ.get("FAILING_RANK", "0")), int(attempt)):
        remaining = int(os.environ["FAILING_STEP"])

        def fail(*_: object) -> None:
            nonlocal remaining
            remaining -= 1
            if remaining == 0:
                memory = os.environ.get("FAILING_ERROR") == "memory"
                raise OutOfMemoryError(MESSAGE) if memory else RuntimeError(MESSAGE)

        register_optimizer_step_pre_hook(fail)
    return _pretrain(options)


if __name__ == "__main__":
    # The agent pickles the function by its name, so it must not be in __main__.
    from tools.faults import failing_step

    pretraining.pretrain = failing_step.pretrain
    sys.exit(main())

"""The exchange of gradients between processes: bytes and seconds per step.

DistributedDataParallel measures the seconds in the first ten steps and then in every hundredth. A
communication hook would run in threads of the backend, and a loader worker that is forked while
such a thread enters or leaves Python can hang (CPython 3.11, `PyOS_AfterFork_Child`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass
class Traffic:
    """The exchange of the network given to `watch`; `measured` returns torch's figures, in ns."""

    bytes_per_step: int = 0
    measured: Callable[[], Mapping[str, Any]] = dict

    def watch(self, parallel: nn.Module) -> None:
        """Measure the exchanges of `parallel` from now on, if it is distributed."""
        if isinstance(parallel, DistributedDataParallel):
            self.measured = parallel._get_ddp_logging_data
            trained = [p for p in parallel.parameters() if p.requires_grad]
            self.bytes_per_step = sum(p.nbytes for p in trained)

    @property
    def seconds_per_step(self) -> float:
        """Mean seconds in which gradients were exchanged, most of them during the backward pass."""
        return float(self.measured().get("avg_backward_comm_time", 0)) / 1e9

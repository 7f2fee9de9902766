"""What the processes exchange of their gradients: how many bytes, and for how long.

Both come from DistributedDataParallel, which measures the first ten steps and then every hundredth.
A hook of ours would run in threads of the backend, and a loader worker that is forked at the moment
in which such a thread enters or leaves Python can hang (CPython 3.11, `PyOS_AfterFork_Child`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass
class Traffic:
    """The exchange of the network that `watch` was given; `measured` has torch's figures, in ns."""

    bytes_per_step: int = 0
    measured: Callable[[], Mapping[str, Any]] = dict

    def watch(self, parallel: nn.Module) -> None:
        """Follow the exchanges of `parallel`, if it is distributed, from now on."""
        if isinstance(parallel, DistributedDataParallel):
            self.measured = parallel._get_ddp_logging_data
            trained = [p for p in parallel.parameters() if p.requires_grad]
            self.bytes_per_step = sum(p.nbytes for p in trained)

    @property
    def seconds_per_step(self) -> float:
        """In which any gradient was under way, mostly beside the backward pass; a mean."""
        return float(self.measured().get("avg_backward_comm_time", 0)) / 1e9

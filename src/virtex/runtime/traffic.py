"""What the processes exchange of their gradients: how many bytes, and for how long."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

Moment = Any
"""A time in seconds on the CPU, an event of CUDA on a GPU."""


@dataclass
class Traffic:
    """Adds up what `watch` sees, since its last `take`."""

    bytes: int = 0
    _spans: list[tuple[Moment, Moment]] = field(default_factory=list)

    def watch(self, parallel: torch.nn.Module) -> None:
        """Count the exchanges of `parallel`, if it is distributed, from now on."""
        if isinstance(parallel, DistributedDataParallel):
            parallel.register_comm_hook(None, self._mean)

    def take(self) -> tuple[int, float]:
        """Bytes of gradients, and seconds in which any was under way; begins anew."""
        taken = self.bytes, _union(self._spans)
        self.bytes, self._spans = 0, []
        return taken

    def _mean(self, _: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """The mean of a bucket over all processes, as DistributedDataParallel takes it itself."""
        tensor = bucket.buffer().div_(dist.get_world_size())
        self.bytes += tensor.numel() * tensor.element_size()
        start = _now(tensor.device)

        def record(done: torch.futures.Future[list[Tensor]]) -> Tensor:
            self._spans.append((start, _now(tensor.device)))
            return done.value()[0]

        work = dist.all_reduce(tensor, async_op=True)
        future: torch.futures.Future[Tensor] = work.get_future().then(record)
        return future


def _now(device: torch.device) -> Moment:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _union(spans: list[tuple[Moment, Moment]]) -> float:
    """The seconds that lie in any of the spans."""
    if spans and not isinstance(spans[0][0], float):
        first = spans[0][0]
        torch.cuda.synchronize()
        spans = [
            (first.elapsed_time(start) / 1e3, first.elapsed_time(end) / 1e3) for start, end in spans
        ]
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

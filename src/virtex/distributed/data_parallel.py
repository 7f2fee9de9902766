"""DistributedDataParallel with one layout of gradients, from the first step on."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from virtex.distributed.world import World


def data_parallel(module: nn.Module, world: World) -> nn.Module:
    """`module`, such that the processes' gradients become their mean in the backward pass.

    The gradients are summed in the same buckets from the first step on, so that a resumed run adds
    them in the same order as one that was not interrupted.
    """
    if world.size == 1:
        return module
    with warnings.catch_warnings():
        # torch 2.15 warns of `broadcast_buffers`; the name that it prefers is unknown to 2.11.
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(
            module,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            # Batch-norm statistics are per process, as published; those of rank 0 are saved.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    # torch sums the gradients of the first backward pass in one bucket, and those of all later ones
    # in buckets by the order in which the first computed them: let that be a pass without data.
    parallel.module = _SumOfParameters(module)
    parallel().backward()
    parallel.module = module
    module.zero_grad()
    return parallel


class _SumOfParameters(nn.Module):
    """The sum of a module's parameters: its backward pass reaches them all, the last one first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self) -> Tensor:
        """A scalar tensor."""
        return torch.stack([p.sum() for p in self.module.parameters() if p.requires_grad]).sum()

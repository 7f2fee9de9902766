"""Batch norm with statistics over the images of all processes, on any device.

torch's own runs on GPUs only; the one here is a slow and simple reference for the CPU.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def synchronise_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm in `module` by one over all processes, with the same state dict.

    `device` is the one on which the module will run. Needs a process group.
    """
    if device.type == "cuda":
        convert = nn.SyncBatchNorm.convert_sync_batchnorm
        converted: nn.Module = convert(module)  # type: ignore[no-untyped-call]
        return converted
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SyncBatchNorm(child))
        else:
            synchronise_batch_norm(child, device)
    return module


class SyncBatchNorm(nn.Module):
    """An `nn.BatchNorm2d` over all processes, with its parameters and buffers."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, replaced: nn.BatchNorm2d) -> None:
        super().__init__()
        assert replaced.momentum is not None
        self.momentum = replaced.momentum
        self.eps = replaced.eps
        self.weight = replaced.weight
        self.bias = replaced.bias
        for name, buffer in replaced.named_buffers():
            self.register_buffer(name, buffer)
        self.train(replaced.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same; in training all processes must call this together."""
        if not self.training:
            return F.batch_norm(
                *(x, self.running_mean, self.running_var, self.weight, self.bias), eps=self.eps
            )
        wide = x.to(self.weight.dtype)
        size = wide.new_tensor([x.numel() // x.shape[1]])
        # The mean first, then squared deviations: a difference of two large sums loses digits.
        sums = _sum_over_processes(torch.cat((wide.sum(dim=(0, 2, 3)), size)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
        scale = self.weight * torch.rsqrt(variance + self.eps)
        y = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return y.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked += 1


class _SumOverProcesses(torch.autograd.Function):
    """The sum of all processes' tensors, whose gradient is the sum of all their gradients."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(x: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(x)
    return total

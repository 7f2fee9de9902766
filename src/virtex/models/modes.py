"""Temporary modes: evaluation, and building modules without memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients; each module's mode is restored afterwards."""
    training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)


def materialise(module: nn.Module) -> None:
    """Replace all tensors on the meta device by uninitialised ones on the CPU.

    Shared parameters stay shared, and all keep their dtype and memory layout. Other tensors, such
    as buffers that no checkpoint holds, are unchanged.
    """
    made: dict[Tensor, Tensor] = {}
    persistent = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    for part in module.modules():
        for tensors in (cast(dict[str, Any], part._parameters), part._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_meta:
                    continue
                assert id(tensor) in persistent, name
                if tensor not in made:
                    empty = torch.empty_like(tensor, device="cpu", requires_grad=False)
                    parameter = isinstance(tensor, nn.Parameter)
                    made[tensor] = nn.Parameter(empty, tensor.requires_grad) if parameter else empty
                tensors[name] = made[tensor]


class SizesAlone(TorchFunctionMode):
    """Build modules on the meta device in this context, without memory for their parameters.

    Other tensors are unaffected: torchvision computes the widths of a RegNet with some, which
    `torch.device("meta")` would make impossible.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _FILLED and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)


_FILLED = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}

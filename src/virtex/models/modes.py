"""Temporary modes: evaluation, and building modules without memory."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients, and restore each module's mode afterwards."""
    training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.train(mode)


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

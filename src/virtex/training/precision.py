"""The floating-point type of the forward pass on each device, and the reason for it."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

PrecisionName = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Precision:
    """A type for matrix products and convolutions, its device, and the reason for the choice."""

    dtype: torch.dtype
    device_type: str
    reason: str

    @property
    def name(self) -> str:
        """The name of the type, such as float32."""
        return str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        )

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """A loss scaler, active for float16 only: the other types have the range of float32."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


def choose_precision(amp: bool, device: torch.device) -> Precision:
    """bfloat16 if the device supports it, else float16 on CUDA, else float32."""
    kind = device.type
    if not amp:
        return Precision(torch.float32, kind, "AMP is false")
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, kind, "mixed precision; this GPU has bfloat16")
        return Precision(torch.float16, kind, "mixed precision; this GPU lacks bfloat16")
    if kind == "cpu" and _cpu_has_bfloat16():
        return Precision(torch.bfloat16, kind, "mixed precision; this CPU has bfloat16")
    return Precision(torch.float32, kind, f"AMP is true, but this {kind} device lacks bfloat16")


def named_precision(name: PrecisionName, device: torch.device) -> Precision:
    """The type of a name; auto is bfloat16 on a GPU that has it, otherwise float32."""
    if name == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        name = "bfloat16" if fast else "float32"
    return Precision(getattr(torch, name), device.type, "--precision")


def _cpu_has_bfloat16() -> bool:
    # Without these instructions torch emulates bfloat16 at a quarter of float32's speed. Newer
    # releases name them all in get_capabilities (ARM's too); older ones know x86's alone.
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        names = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16", "arm_bf16")
        return any(bool(capabilities.get(name)) for name in names)
    return bool(torch.cpu._is_avx512_bf16_supported())

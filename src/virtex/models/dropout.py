"""Dropout (Srivastava et al., 2014) that does not depend on how a batch is divided.

A mask is a function of the key of its row, of the module's number among the model's dropouts, and
of the position in the tensor: the same in a batch of any size, padded to any length, in any
process.
"""

import torch
from torch import Tensor, nn

_STEP = -1640531527  # 2³² / golden ratio, as int32: spreads neighbouring positions


class KeyedDropout(nn.Module):
    """In training, zeroes each element with probability `p` and scales the others by 1 / (1 − p).

    The rows of a tensor are those whose keys `draw_dropout` set. A model may call the module
    several times: each call has its own mask.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.keys: Tensor | None = None  # (B,) int32
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) to the same."""
        if not self.training or self.p == 0:
            return x
        assert self.keys is not None, "call draw_dropout before the forward pass"
        keys = _mixed(self.keys + self.calls)
        self.calls += 1
        return torch.where(keep_mask(keys, x.shape, self.p), x * (1 / (1 - self.p)), 0.0)


def draw_dropout(module: nn.Module, keys: Tensor) -> None:
    """Set the keys of the rows, (B,) int64, from which all dropouts of `module` derive masks."""
    keys = _mixed(_mixed(keys.to(torch.int32)) ^ (keys >> 32).to(torch.int32))
    dropouts = [part for part in module.modules() if isinstance(part, KeyedDropout)]
    for number, part in enumerate(dropouts):
        part.keys = _mixed(keys + _STEP * number)
        part.calls = 0


def keep_mask(keys: Tensor, shape: torch.Size, p: float) -> Tensor:
    """The mask of elements to keep, bool (B, …) of `shape`, each with probability 1 − `p`.

    Element (b, i, j, …) is a function of `keys[b]`, int32, i, j, … alone.
    """
    bits = keys
    for size in shape[1:]:
        steps = torch.arange(size, dtype=torch.int32, device=keys.device) * _STEP
        bits = _mixed(bits.unsqueeze(-1) + steps)
    return bits >= round(p * 2**32) - 2**31


def _mixed(bits: Tensor) -> Tensor:
    """A bijection of int32 in which each input bit flips about half of the output bits.

    Two rounds of xor-shift and multiplication, with the constants found by Wellons (2018). Int32
    wraps, and its right shift repeats the sign, which the masks remove.
    """
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    bits.mul_(0x7FEB352D)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF))
    bits.mul_(-2073254261)  # 0x846CA68B
    return bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF))

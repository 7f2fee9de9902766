"""Dropout (Srivastava et al., 2014) that depends on the example, not on where it is computed.

A mask is a function of the example's key, of which of the model's dropouts it is, and of the
position in the tensor: the same in a batch of any size, padded to any length, in any process.
"""

import torch
from torch import Tensor, nn

_STEP = -1640531527  # 2³² / golden ratio, as int32: neighbours in a row lie far apart


class KeyedDropout(nn.Module):
    """In training, zeroes each element with probability `p` and scales the others by 1 / (1 − p).

    The first axis is that of the examples whose keys `draw_dropout` set. One such module may stand
    in several places: each call has a mask of its own.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.keys: Tensor | None = None
        self._calls = 0

    def set_keys(self, keys: Tensor) -> None:
        """Draw the following masks by `keys`, (B,) int32."""
        self.keys = keys
        self._calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) to the same."""
        if not self.training or self.p == 0:
            return x
        assert self.keys is not None, "draw_dropout comes before the forward pass"
        keys = _mixed(self.keys + self._calls)
        self._calls += 1
        return torch.where(keep_mask(keys, x.shape, self.p), x * (1 / (1 - self.p)), 0.0)


def draw_dropout(module: nn.Module, keys: Tensor) -> None:
    """Let the masks of all dropouts of `module` follow from `keys`, (B,) int64, from now on."""
    keys = _mixed(_mixed(keys.to(torch.int32)) ^ (keys >> 32).to(torch.int32))
    dropouts = [part for part in module.modules() if isinstance(part, KeyedDropout)]
    for number, part in enumerate(dropouts):
        part.set_keys(_mixed(keys + _STEP * number))


def keep_mask(keys: Tensor, shape: torch.Size, p: float) -> Tensor:
    """Which elements stay, bool (B, …) of `shape`, each with probability 1 − `p`.

    Element (b, i, j, …) depends on `keys[b]`, int32, i, j, … alone.
    """
    bits = keys
    for size in shape[1:]:
        steps = torch.arange(size, dtype=torch.int32, device=keys.device) * _STEP
        bits = _mixed(bits.unsqueeze(-1) + steps)
    return bits >= round(p * 2**32) - 2**31


def _mixed(bits: Tensor) -> Tensor:
    """A bijection of int32 in which each bit of the input flips about half of the output's.

    Two rounds of xor with a shift and multiplication, the constants found by Wellons (2018).
    Int32 wraps, and its shift to the right repeats the sign, which the masks take away.
    """
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    bits.mul_(0x7FEB352D)
    bits.bitwise_xor_((bits >> 15).bitwise_and_(0x1FFFF))
    bits.mul_(-2073254261)  # 0x846CA68B
    return bits.bitwise_xor_((bits >> 16).bitwise_and_(0xFFFF))

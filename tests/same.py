"""Bit-for-bit equality of what checkpoints hold."""

from collections.abc import Mapping

import torch


def first_difference(one, other, name="state"):
    """The name of the first place where two states differ, in type, keys or any bit, or None."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        equal = one.dtype == other.dtype and one.shape == other.shape
        # Bytes, so that -0.0 is not 0.0 and a NaN equals itself.
        equal = equal and one.numpy().tobytes() == other.numpy().tobytes()
        return None if equal else name
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if list(one) != list(other):
            return f"keys of {name}"
        pairs = [(f"{name}[{key!r}]", one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"length of {name}"
        pairs = [
            (f"{name}[{index}]", *pair) for index, pair in enumerate(zip(one, other, strict=True))
        ]
    else:
        return None if type(one) is type(other) and one == other else name
    differences = (first_difference(a, b, inner) for inner, a, b in pairs)
    return next((difference for difference in differences if difference is not None), None)

"""Learning-rate schedules: functions from the number of steps to a factor of the peak rate.

Each begins with a linear warm-up from 0; decays last from its end to the end of the run.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def constant(warmup_steps: int) -> Schedule:
    """Constant at 1 after the warm-up."""
    return lambda step: _warmup(step, warmup_steps, 1.0)


def linear(warmup_steps: int, total_steps: int) -> Schedule:
    """Linear decay from 1 to 0 at `total_steps`."""

    def factor(step: int) -> float:
        return _warmup(step, warmup_steps, 1.0 - _progress(step, warmup_steps, total_steps))

    return factor


def cosine(warmup_steps: int, total_steps: int) -> Schedule:
    """Decay from 1 to 0 at `total_steps` along half a cosine (Loshchilov and Hutter, 2017)."""

    def factor(step: int) -> float:
        progress = _progress(step, warmup_steps, total_steps)
        return _warmup(step, warmup_steps, 0.5 * (1.0 + math.cos(math.pi * progress)))

    return factor


def multistep(warmup_steps: int, milestones: Sequence[int], gamma: float) -> Schedule:
    """`gamma` to the power of the number of `milestones` (ascending) reached."""

    def factor(step: int) -> float:
        return _warmup(step, warmup_steps, gamma ** bisect_right(milestones, step))

    return factor


def _warmup(step: int, warmup_steps: int, afterwards: float) -> float:
    return step / warmup_steps if step < warmup_steps else afterwards


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    return min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))

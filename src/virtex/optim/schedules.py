"""Learning-rate schedules: functions from the number of steps to a factor of the peak rate.

Each begins with a linear warm-up from 0; decays last from its end to the end of the run.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def constant(warmup_steps: int) -> Schedule:
    """Constant at 1 after the warm-up."""
    return _with_warmup(warmup_steps, lambda _: 1.0)


def linear(warmup_steps: int, total_steps: int) -> Schedule:
    """Linear decay from 1 to 0 at `total_steps`."""
    return _with_warmup(warmup_steps, lambda step: 1.0 - _progress(step, warmup_steps, total_steps))


def cosine(warmup_steps: int, total_steps: int) -> Schedule:
    """Decay from 1 to 0 at `total_steps` along half a cosine (Loshchilov and Hutter, 2017)."""

    def factor(step: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * _progress(step, warmup_steps, total_steps)))

    return _with_warmup(warmup_steps, factor)


def multistep(warmup_steps: int, milestones: Sequence[int], gamma: float) -> Schedule:
    """`gamma` to the power of the number of `milestones` (ascending) reached."""
    return _with_warmup(warmup_steps, lambda step: gamma ** bisect_right(milestones, step))


def _with_warmup(warmup_steps: int, afterwards: Schedule) -> Schedule:
    return lambda step: step / warmup_steps if step < warmup_steps else afterwards(step)


def _progress(step: int, warmup_steps: int, total_steps: int) -> float:
    return min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))

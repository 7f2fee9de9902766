"""The training loop and validation, for any task.

Iterations count from 1. Iteration i uses the schedule's factor for i - 1 steps, and torch's random
numbers are a function of (seed, iteration, rank), so that a run can resume anywhere. Networks that
drop whole layers use them; dropout is a function of the captions' keys.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from virtex.distributed.world import World
from virtex.errors import RunError, first_few
from virtex.optim.averaging import WeightAverage
from virtex.optim.lookahead import AnyOptimizer
from virtex.optim.schedules import Schedule
from virtex.tasks.base import Batch, Objective, select_images
from virtex.training.precision import Precision


class Diverged(RunError):
    """Too many steps in a row had a gradient that was not finite."""


@dataclass(frozen=True)
class Step:
    """A finished iteration.

    `losses` are detached and on the device; their mean over the processes is the mean over the
    items of the global batch. `applied` is False where the gradient was not finite, so that the
    weights are unchanged.
    """

    iteration: int
    losses: Mapping[str, Tensor]
    gradient_norm: Tensor
    learning_rates: Mapping[str, float]
    applied: bool
    images: int
    data_seconds: float
    seconds: float


@dataclass(frozen=True)
class TrainState:
    """The objects of every step; all but `schedule` and `precision` change.

    `parallel` is the objective, or a DistributedDataParallel of it. The optimizer's groups hold
    `name`, `peak_lr` and `lr`. `average` is None without an average of the weights.
    """

    objective: Objective
    parallel: nn.Module
    optimizer: AnyOptimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    precision: Precision
    average: WeightAverage | None = None


def optimize(
    state: TrainState,
    batches: Iterator[Batch],
    *,
    clip_grad_norm: float,
    max_nonfinite_steps: int,
    seed: int,
    world: World,
    accumulate: int = 1,
    first: int,
    last: int,
) -> Iterator[Step]:
    """Train for the iterations `first` … `last` and yield after each.

    `batches` are this process's parts of the global batches and start at iteration `first`. A batch
    is computed in `accumulate` parts with equally many images. Each loss is a mean over the items
    of the global batch, however it is divided; training minimises the sum of the weighted losses.
    The gradient's norm is clipped to `clip_grad_norm`. A step whose gradient is not finite does not
    change the weights; more than `max_nonfinite_steps` of them in a row raise `Diverged`.
    """
    objective, optimizer = state.objective, state.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    nonfinite = 0
    objective.train()
    for iteration in range(first, last + 1):
        start = time.perf_counter()
        batch = next(batches)
        data_seconds = time.perf_counter() - start
        _seed_torch(seed, world.rank, iteration)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * state.schedule(iteration - 1)
        optimizer.zero_grad()
        # A forward pass that overflows would spoil batch norm's running statistics for good.
        statistics = [buffer.clone() for buffer in objective.buffers()]
        denominators = _loss_denominators(objective, batch, world)
        losses = {name: torch.zeros_like(count) for name, count in denominators.items()}
        for microbatch, synchronised in _microbatches(batch, accumulate, state.parallel):
            with synchronised:
                with state.precision.autocast():
                    sums = state.parallel(microbatch)
                means = {name: loss.total / denominators[name] for name, loss in sums.items()}
                loss = torch.stack(list(objective.weighted(means).values())).sum()
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses = {name: losses[name] + mean.detach() for name, mean in means.items()}
        norm, applied = _optimizer_step(optimizer, state.scaler, parameters, clip_grad_norm)
        if not applied:
            for buffer, saved in zip(objective.buffers(), statistics, strict=True):
                buffer.copy_(saved)
        elif state.average is not None:
            state.average.update(objective)
        nonfinite = 0 if applied else nonfinite + 1
        step = Step(
            iteration=iteration,
            losses=losses,
            gradient_norm=norm,
            learning_rates={group["name"]: group["lr"] for group in optimizer.param_groups},
            applied=applied,
            images=len(batch["image"]),
            data_seconds=data_seconds,
            seconds=time.perf_counter() - start,
        )
        if nonfinite > max_nonfinite_steps:
            raise Diverged(_diagnosis(objective, step, batch, nonfinite))
        yield step


def _loss_denominators(objective: Objective, batch: Batch, world: World) -> dict[str, Tensor]:
    """The items of each loss in all processes, at least one, divided by the number of processes.

    DistributedDataParallel averages the processes' gradients. With sums that are divided by these
    numbers the average is the gradient of the mean over all items.
    """
    counts = objective.num_targets(batch)
    totals = world.sum(torch.stack(list(counts.values()))).clamp(min=1) / world.size
    return dict(zip(counts, totals.unbind(), strict=True))


def _microbatches(
    batch: Batch, accumulate: int, parallel: nn.Module
) -> Iterator[tuple[Batch, AbstractContextManager[None]]]:
    """The parts of a batch, and a context in which only the last one's gradient is exchanged."""
    rows = len(batch["image"]) // accumulate
    for start in range(0, rows * accumulate, rows):
        part = select_images(batch, start, start + rows)
        if isinstance(parallel, DistributedDataParallel) and start < rows * (accumulate - 1):
            yield part, parallel.no_sync()
        else:
            yield part, nullcontext()


def _optimizer_step(
    optimizer: AnyOptimizer,
    scaler: torch.amp.GradScaler,
    parameters: Sequence[nn.Parameter],
    clip_grad_norm: float,
) -> tuple[Tensor, bool]:
    """Step if the gradient is finite; its norm before clipping, and whether it was finite."""
    scaler.unscale_(optimizer)  # type: ignore[arg-type]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    finite = bool(norm.isfinite())
    if finite:
        nn.utils.clip_grads_with_norm_(parameters, clip_grad_norm, norm)
        scaler.step(optimizer)  # type: ignore[arg-type]
    # Lowers the scale if `unscale_` has found a gradient that overflowed.
    scaler.update()
    return norm, finite


@torch.no_grad()
def validate(
    objective: Objective,
    batches: Iterable[Batch],
    *,
    precision: Precision,
    sum_over_processes: Callable[[Tensor], Tensor],
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """The mean of each loss over all items of the split, however it is divided into batches.

    A process without any batch takes part too. A loss without any item is left out. Returns None
    if `stopping` was true on any process, before the split ended. Leaves the module in training
    mode, and torch's random state unchanged.
    """
    objective.eval()
    names = objective.loss_names
    device = next(objective.parameters()).device
    sums = torch.zeros(len(names) + 1, 2, dtype=torch.float64, device=device)
    try:
        for batch in batches:
            if stopping():
                sums[-1] += 1
                break
            with precision.autocast():
                losses = objective(batch)
            pairs = [torch.stack((losses[name].total, losses[name].items)) for name in names]
            sums[:-1] += torch.stack(pairs)
    finally:
        objective.train()
    *rows, (stopped, _) = sum_over_processes(sums).tolist()
    if stopped:
        return None
    totals = dict(zip(names, rows, strict=True))
    return {name: total / count for name, (total, count) in totals.items() if count > 0}


def _seed_torch(random_seed: int, rank: int, iteration: int) -> None:
    (seed,) = np.random.SeedSequence([random_seed, rank, iteration]).generate_state(1, np.uint64)
    # torch takes 64-bit seeds as signed.
    torch.manual_seed(int(seed >> np.uint64(1)))


def _diagnosis(objective: Objective, step: Step, batch: Batch, nonfinite: int) -> str:
    losses = ", ".join(f"{name} {float(value):.4g}" for name, value in step.losses.items())
    rates = ", ".join(f"{name} {rate:.3g}" for name, rate in step.learning_rates.items())
    bad = [
        name
        for name, p in objective.named_parameters()
        if p.grad is not None and not bool(p.grad.isfinite().all())
    ]
    broken = [name for name, p in objective.named_parameters() if not bool(p.isfinite().all())]
    where = f"first parameters with such a gradient: {first_few(bad, 3)} ({len(bad)} in all)"
    weights = f"weights not finite: {first_few(broken, 3)}" if broken else "all weights are finite"
    return (
        f"training diverged: the gradient was not finite in {nonfinite} iterations in a row, up to "
        f"iteration {step.iteration}\n"
        f"  losses: {losses}\n"
        f"  learning rates: {rates}\n"
        f"  {where}\n"
        f"  {weights}; these steps were not applied, and nothing was saved since\n"
        f"  images of the last batch: {first_few(batch['image_id'].tolist(), 8)}\n"
        "Try a lower OPTIM.CNN_LR and OPTIM.LR, a longer OPTIM.WARMUP_STEPS, or AMP false, and "
        "continue with --resume-from latest."
    )

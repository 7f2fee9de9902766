"""What a run logs of its iterations."""

from collections.abc import Mapping

import torch
from torch import Tensor

from virtex.distributed.world import World
from virtex.training.loop import Step
from virtex.training.progress import Meter, peak_memory_gb, progress_line, training_scalars
from virtex.training.setup import Run


def log_step(run: Run, meter: Meter, step: Step) -> None:
    """Log an iteration that is not applied, and every `log_every` iterations losses and speed."""
    logger, last, iteration = run.logger, run.options.config.optim.iterations, step.iteration
    if not step.applied:
        logger.warning(f"iteration {iteration}: gradient not finite, step not applied")
    if iteration % run.options.log_every and iteration != last:
        return
    losses = _mean_over_processes(step.losses, run.world)
    total = run.state.objective.total(losses)
    speed = meter.speed(peak_memory_gb(run.world.device))
    logger.log_scalars(iteration, training_scalars(step, total, losses))
    logger.log_scalars(iteration, speed | run.seen.scalars(iteration))
    epochs = run.seen.epochs(iteration)
    logger.info(progress_line(iteration, last, epochs, total, losses, speed, meter.step_seconds))
    meter.restart()


def _mean_over_processes(losses: Mapping[str, Tensor], world: World) -> dict[str, float]:
    values = world.sum(torch.stack(list(losses.values()))) / world.size
    return dict(zip(losses, values.tolist(), strict=True))

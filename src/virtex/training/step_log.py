"""What a run logs of its iterations."""

import shutil
from collections.abc import Mapping

import torch
from torch import Tensor

from virtex.distributed.world import World
from virtex.training.forecast import Forecast, checkpoint_bytes, disk_line
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


def log_forecast(run: Run, forecast: Forecast, step: Step) -> None:
    """After the first twenty steps, log how long the others take and how much disk they need."""
    if not (forecast.is_due(step) and run.world.main):
        return
    run.logger.info(forecast.duration(step.iteration))
    directory = run.options.directory
    count = forecast.checkpoints_at_end(directory, run.retention)
    best = run.evaluation.best is not None  # it may be one of them
    line, fits = disk_line(
        checkpoint_bytes(run.state), count + best, shutil.disk_usage(directory).free
    )
    if fits:
        run.logger.info(line)
    else:
        run.logger.warning(f"{line}; free some, or keep fewer checkpoints (--keep-recent)")


def _mean_over_processes(losses: Mapping[str, Tensor], world: World) -> dict[str, float]:
    values = world.sum(torch.stack(list(losses.values()))) / world.size
    return dict(zip(losses, values.tolist(), strict=True))

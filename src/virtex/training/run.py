"""Pretraining in one process: what happens between a configuration and its checkpoints."""

import resource
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from virtex._version import __version__
from virtex.build.data import (
    PretrainingData,
    open_data,
    training_batches,
    validation_batches,
    validation_samples,
)
from virtex.build.model import sample_predictor
from virtex.checkpoints import file as checkpoint
from virtex.checkpoints import run_directory as directory
from virtex.checkpoints.background import BackgroundSaver
from virtex.checkpoints.lock import locked
from virtex.checkpoints.run_directory import ResumePoint
from virtex.checkpoints.state import vocabulary_state
from virtex.config import loading as settings
from virtex.data import subset
from virtex.data.loader import translate_worker_errors
from virtex.distributed.debugging import debugger
from virtex.distributed.environment import read_environment
from virtex.distributed.shared_memory import translate_shared_memory_errors
from virtex.distributed.signals import STOPPED, StopRequest, stop_requests
from virtex.distributed.traffic import Traffic
from virtex.distributed.watchdog import Watchdog
from virtex.distributed.world import World, connect
from virtex.errors import RunError, UserError, first_few
from virtex.files import whole_file
from virtex.plots.contact_sheet import contact_sheet
from virtex.tasks.base import Batch, Objective
from virtex.training.logger import RunLogger
from virtex.training.loop import Step, TrainState, optimize, validate
from virtex.training.out_of_memory import translate_memory_errors
from virtex.training.progress import Meter, losses_text, progress_line, training_scalars
from virtex.training.setup import (
    PretrainOptions,
    begin,
    preflight,
    retention,
    shared_memory_needed,
    start_or_refusal,
)

SAMPLES = 8
"""How many validation images the page of captions shows."""


@dataclass(frozen=True)
class Run:
    """One process's part of a run: its options, its objects, and what reports and saves them."""

    options: PretrainOptions
    world: World
    watchdog: Watchdog
    request: StopRequest
    data: PretrainingData
    state: TrainState
    retention: checkpoint.Retention
    shared_memory: int
    saver: BackgroundSaver


def pretrain(options: PretrainOptions) -> int:
    """Train from where the run stands to its last iteration; returns the exit status.

    `STOPPED` where a signal asked to stop: what was reached is saved.
    """
    process = read_environment()
    with ExitStack() as stack:
        stack.enter_context(_failures_of_files(options.directory))
        request = stack.enter_context(stop_requests())
        connection = connect(
            process,
            gpus=options.gpus,
            timeouts=options.timeouts,
            stopping=lambda: bool(request),
            parent=request.parent,
        )
        world, watchdog = stack.enter_context(connection)
        if options.terminal is not None:
            # Before the others hear of an error, and end.
            stack.enter_context(debugger(options.terminal, here=process.rank == options.debug_rank))
        shared_memory = shared_memory_needed(options, world)
        stack.enter_context(translate_shared_memory_errors(shared_memory))
        watchdog.report("reading the annotations")
        data = open_data(options.config)
        warning = None
        if world.main and not options.preflight_only:
            warning = stack.enter_context(locked(options.directory))
        watchdog.report("reading the checkpoint")
        start = world.from_main(lambda: start_or_refusal(options, data, process.attempt))
        if isinstance(start, UserError):
            return _refused(start, world)
        watchdog.report("building the model")
        with translate_memory_errors(options.config, world):
            state = begin(options, world, start)
        fresh = start.state is None
        start = start.without_state()  # it is as large as model and optimizer
        watchdog.report("preflight")
        notes = preflight(options, world, data, state)
        if options.preflight_only:
            if world.main:
                print("\n".join(notes))
            return 0
        with translate_memory_errors(options.config, world):
            state = replace(state, parallel=distributed(state.objective, world))
        run = Run(
            options=options,
            world=world,
            watchdog=watchdog,
            request=request,
            data=data,
            state=state,
            retention=retention(options, start),
            shared_memory=shared_memory,
            saver=BackgroundSaver(),
        )
        _prepare_directory(run, save_weights=options.init_from is not None and fresh)
        return _record(run, start, [] if warning is None else [warning], notes)


def _refused(error: UserError, world: World) -> int:
    """The exit status of every process; the first one has the message.

    Returned where there are several, so that no agent starts them again for the same answer.
    """
    if world.size == 1:
        raise error
    if world.main:
        print(f"virtex pretrain: error: {error}", file=sys.stderr, flush=True)
    world.wait()  # else the end of the connection could be noticed before the answer
    return error.exit_status


@contextmanager
def _failures_of_files(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"reading or writing failed: {error}. Make room or correct the permissions of "
            f"{directory}, then continue with --resume-from latest"
        ) from error


def _record(run: Run, start: ResumePoint, cautions: list[str], notes: list[str]) -> int:
    """Train, with a logger that also gets the error that ends the run."""
    options, world = run.options, run.world
    first = start.iteration + 1
    with closing(RunLogger(options.directory, rank=world.rank, first=first)) as logger:
        run.watchdog.log = options.directory / f"log_rank{world.rank}.txt"
        try:
            for line in cautions:
                logger.warning(line)
            _introduce(run, logger, start)
            for line in notes:
                logger.info(line)
            with (
                translate_shared_memory_errors(run.shared_memory),
                translate_worker_errors(),
                translate_memory_errors(options.config, world),
            ):
                status = _train(run, logger, start)
            run.saver.finish()
            _log_saved(run, logger)
            for line in run.data.fetched:
                logger.info(line)
            if status == 0:
                # No process has succeeded before the last checkpoint is there.
                run.watchdog.report("waiting until the last checkpoint is saved")
                run.world.wait()
        except (Exception, KeyboardInterrupt) as error:
            # First, as what follows may take long.
            run.watchdog.announce(error)
            logger.log_error(str(error) if isinstance(error, UserError) else traceback.format_exc())
            raise
        finally:
            # What is being written when something else fails becomes whole.
            with suppress(UserError):
                run.saver.finish()
        return status


def _train(run: Run, logger: RunLogger, start: ResumePoint) -> int:
    """Train up to the last iteration, or until a signal asks to stop; returns the exit status."""
    options, last = run.options, run.options.config.optim.num_iterations
    if start.validation_due:
        if not _validate(run, logger, start.iteration):
            return _stop(run, logger, start.iteration)
        _save(run, start.iteration, validated=True)
    if start.iteration >= last:
        logger.info(f"all {last} iterations are done already; OPTIM.NUM_ITERATIONS sets more")
    if options.debug_rank is not None:
        breakpoint()  # of the process that was asked for; the others pass
    traffic = Traffic()
    traffic.watch(run.state.parallel)
    meter = Meter(run.world.size, traffic)
    validated = start.iteration
    # Closed, or else an error would hold on to the loader's workers.
    with closing(_steps(run, logger, start.iteration + 1)) as steps:
        for step in steps:
            meter.add(step)
            _log_step(run, logger, meter, step)
            due = step.iteration == last or _is_due(
                options.checkpoint_every, validated, step.iteration
            )
            run.watchdog.report(f"iteration {step.iteration}, asking whether to stop")
            if run.world.any(bool(run.request)):
                _save(run, step.iteration, validated=not due)
                return _stop(run, logger, step.iteration)
            # Weights that give no finite gradient may be bad already: wait for a step that is
            # applied.
            if due and (step.applied or step.iteration == last):
                finished = _validate(run, logger, step.iteration)
                _save(run, step.iteration, validated=finished)
                if not finished:
                    return _stop(run, logger, step.iteration)
                validated = step.iteration
    return 0


def _is_due(every: int, validated: int, iteration: int) -> bool:
    """Whether a multiple of `every` lies after the last validation, up to `iteration`."""
    return iteration // every > validated // every


def _stop(run: Run, logger: RunLogger, iteration: int) -> int:
    """Finish saving, and return the exit status of a run that was stopped and can be resumed."""
    run.watchdog.report(f"iteration {iteration}, saving before the stop")
    run.saver.finish()
    _log_saved(run, logger)
    # The others must not end first: an agent would take that for the end of the job.
    run.world.wait()
    name = run.request.signal.name if run.request.signal is not None else "a signal elsewhere"
    logger.info(
        f"stopped by {name} after iteration {iteration}; continue with --resume-from latest"
    )
    return STOPPED


def _steps(run: Run, logger: RunLogger, first: int) -> Generator[Step, None, None]:
    config = run.options.config
    batches = training_batches(
        *(config, run.data, run.world),
        workers=run.options.workers,
        first=first,
        on_bad_image=logger.warning_once,
        say=logger.info,
        reached=run.watchdog.report,
        stopping=lambda: bool(run.request),
    )
    with closing(batches):
        yield from optimize(
            run.state,
            _reported(batches, run.watchdog, first),
            clip_grad_norm=config.optim.clip_grad_norm,
            max_nonfinite_steps=config.optim.max_nonfinite_steps,
            seed=config.random_seed,
            world=run.world,
            accumulate=config.optim.accumulate,
            first=first,
            last=config.optim.num_iterations,
        )


def _reported(batches: Iterator[Batch], watchdog: Watchdog, first: int) -> Iterator[Batch]:
    """`batches`, with the phase of each iteration reported around them."""
    for iteration in count(first):
        watchdog.report(f"iteration {iteration}, waiting for data")
        batch = next(batches)
        watchdog.report(f"iteration {iteration}, training step")
        yield batch


def _log_step(run: Run, logger: RunLogger, meter: Meter, step: Step) -> None:
    last = run.options.config.optim.num_iterations
    if not step.applied:
        logger.warning(f"iteration {step.iteration}: gradient not finite, step not applied")
    if step.iteration % run.options.log_every == 0 or step.iteration == last:
        _log_progress(run, logger, meter, step)
    _log_saved(run, logger)


def _log_progress(run: Run, logger: RunLogger, meter: Meter, step: Step) -> None:
    losses = _mean_over_processes(step.losses, run.world)
    speed = meter.speed(_memory_gb(run.world))
    last = run.options.config.optim.num_iterations
    logger.log_scalars(step.iteration, training_scalars(step, losses))
    logger.log_scalars(step.iteration, speed)
    logger.info(progress_line(step.iteration, last, losses, speed, meter.step_seconds))
    meter.restart()


def _log_saved(run: Run, logger: RunLogger) -> None:
    for path in run.saver.finished():
        logger.info(f"saved {path}")
        checkpoint.remove_old(run.options.directory, run.retention)


def _validate(run: Run, logger: RunLogger, iteration: int) -> bool:
    """Validate, and write down what came out; False where a request to stop came first."""
    objective = run.state.objective

    def watched() -> Generator[Batch, None, None]:
        for batch in validation_batches(
            *(run.options.config, run.data, run.world),
            workers=run.options.workers,
            on_bad_image=logger.warning_once,
        ):
            run.watchdog.report(f"validation after iteration {iteration}")
            yield batch

    run.watchdog.report(f"validation after iteration {iteration}")
    # The statistics that are saved, and so judged, are those of the first process.
    run.world.broadcast(list(objective.buffers()))
    with closing(watched()) as batches:
        means = validate(
            objective,
            batches,
            precision=run.state.precision,
            sum_over_processes=run.world.sum,
            stopping=lambda: bool(run.request),
        )
    if means is None:
        return False
    if not means:
        logger.warning(f"validation after iteration {iteration}: no item to predict, so no loss")
        return True
    scalars = {"val/loss": sum(means.values())} | {f"val/{k}": v for k, v in means.items()}
    logger.log_scalars(iteration, scalars)
    logger.info(f"validation after iteration {iteration}: {losses_text(means)}")
    if run.world.main:
        _show_samples(run, logger, iteration)
    return True


def _show_samples(run: Run, logger: RunLogger, iteration: int) -> None:
    batch = validation_samples(run.data, SAMPLES)
    if batch is None:
        return
    predict = sample_predictor(run.options.config, run.state.objective, run.data.vocabulary)
    samples = predict({name: tensor.to(run.world.device) for name, tensor in batch.items()})
    images = [image.permute(1, 2, 0).numpy() for image in batch["image"]]
    sheet = contact_sheet(images, [sample.prediction for sample in samples])
    rows = "\n".join(f"| {sample.prediction} | {sample.target} |" for sample in samples)
    logger.log_images(iteration, "val/samples", sheet, f"| predicted | given |\n|---|---|\n{rows}")


def _save(run: Run, iteration: int, *, validated: bool) -> None:
    """Begin to save, on the main process."""
    if not run.world.main:
        return
    run.watchdog.report(f"iteration {iteration}, copying what is saved")
    weights = run.state.objective.state_dict()
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise RunError(
            f"iteration {iteration}: weights are not finite ({first_few(broken, 3)}), so were "
            "not saved over good ones; lower OPTIM.CNN_LR and OPTIM.LR, and continue with "
            "--resume-from latest"
        )
    state = {
        "model": weights,
        "optimizer": run.state.optimizer.state_dict(),
        "scaler": run.state.scaler.state_dict(),
        "iteration": iteration,
        "validated": validated,
        # A run that keeps all does not lose them when it resumes without saying so again.
        "untouched": iteration if run.retention.recent is None else run.retention.untouched,
        "config": run.options.config.model_dump(mode="json", by_alias=True),
        **vocabulary_state(run.data.vocabulary),
        "data": run.data.contents.to_plain(),
        # torch's version is of a class of its own, which a reader of plain values refuses.
        "versions": {"virtex": __version__, "torch": str(torch.__version__)},
    }
    run.saver.save(checkpoint.checkpoint_path(run.options.directory, iteration), state)


def _prepare_directory(run: Run, *, save_weights: bool) -> None:
    options = run.options
    # Without a shared file system every machine needs a place for its log.
    options.directory.mkdir(parents=True, exist_ok=True)
    if run.world.main:
        run.watchdog.report("taking fingerprints of the data")
        _ = run.data.contents  # kept, for all checkpoints
        checkpoint.remove_partial_files(options.directory)
        with whole_file(options.directory / directory.CONFIG) as file:
            file.write(settings.dump(options.config).encode())
        subset.write_or_remove(options.directory / subset.SUBSET, run.data.subset)
        if save_weights:
            # So that a run that ends before its first checkpoint resumes from these weights.
            _save(run, 0, validated=True)
            run.saver.finish()
            run.saver.finished()
    run.world.wait()


def _introduce(run: Run, logger: RunLogger, start: ResumePoint) -> None:
    options, world = run.options, run.world
    parameters = sum(p.numel() for p in run.state.objective.parameters())
    logger.info(f"run directory: {options.directory}")
    logger.info(
        f"device: {world.device}, {world.size} process(es), precision: {run.state.precision}"
    )
    logger.info(f"checkpoints: {_kept(run.retention)}")
    logger.info(f"model: {options.config.model.name}, {parameters / 1e6:.1f} M parameters")
    for line in run.data.report:
        logger.info(line)
    for line in start.notes:
        logger.info(line)
    for line in start.cautions:
        logger.warning(line)


def _kept(retention: checkpoint.Retention) -> str:
    """Which checkpoints stay, for a person."""
    if retention.recent is None:
        return "all are kept (--keep-recent 0)"
    if retention.milestone is None:
        return f"the newest {retention.recent} are kept, others are removed (--keep-recent)"
    earlier = f" and all up to iteration {retention.untouched}" if retention.untouched > 0 else ""
    return (
        f"the newest {retention.recent} are kept, one every {retention.milestone:,} iterations"
        f"{earlier}; others are removed (--keep-recent N keeps only the N newest, 0 all)"
    )


def distributed(objective: Objective, world: World) -> nn.Module:
    """`objective`, such that the processes' gradients become their mean in the backward pass.

    The gradients are summed in the same buckets from the first step on, so that a resumed run adds
    them in the same order as one that was not interrupted.
    """
    if world.size == 1:
        return objective
    with warnings.catch_warnings():
        # torch 2.15 warns of `broadcast_buffers`; the name that it prefers is unknown to 2.11.
        warnings.simplefilter("ignore", FutureWarning)
        parallel = DistributedDataParallel(
            objective,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            # Batch-norm statistics are per process, as published; those of rank 0 are saved.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    # torch sums the gradients of the first backward pass in one bucket, and those of all later ones
    # in buckets by the order in which the first computed them: let that be a pass without data.
    parallel.module = _SumOfParameters(objective)
    parallel().backward()
    parallel.module = objective
    objective.zero_grad()
    return parallel


class _SumOfParameters(nn.Module):
    """The sum of a module's parameters: its backward pass reaches them all, the last one first."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self) -> Tensor:
        """A scalar tensor."""
        return torch.stack([p.sum() for p in self.module.parameters() if p.requires_grad]).sum()


def _mean_over_processes(losses: Mapping[str, Tensor], world: World) -> dict[str, float]:
    values = world.sum(torch.stack(list(losses.values()))) / world.size
    return dict(zip(losses, values.tolist(), strict=True))


def _memory_gb(world: World) -> float:
    """Peak memory of this process, in GB: the GPU's where there is one, else resident memory."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

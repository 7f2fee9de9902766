"""Pretraining in one process: what happens between a configuration and its checkpoints."""

import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import torch

from virtex.build.data import training_batches
from virtex.build.token_counts import count_for
from virtex.checkpoints.background import BackgroundSaver
from virtex.checkpoints.file import checkpoint_path
from virtex.checkpoints.lock import locked
from virtex.checkpoints.run_directory import ResumePoint
from virtex.data.loader import translate_worker_errors
from virtex.data.remote.prefetcher import Prefetcher
from virtex.distributed.cpu_threads import available_cores, busy_cores_advice, machine_load
from virtex.distributed.data_parallel import data_parallel
from virtex.distributed.debugging import debugger
from virtex.distributed.environment import read_environment
from virtex.distributed.shared_memory import translate_shared_memory_errors
from virtex.distributed.signals import STOPPED, stop_requests
from virtex.distributed.traffic import Traffic
from virtex.distributed.world import World, connect
from virtex.errors import RunError, UserError
from virtex.tasks import find_task
from virtex.tasks.base import Batch
from virtex.training.evaluation import evaluate_and_log, log_best, restore_evaluations
from virtex.training.forecast import Forecast
from virtex.training.logger import RunLogger
from virtex.training.loop import optimize
from virtex.training.out_of_memory import translate_memory_errors
from virtex.training.progress import Meter, PreparationProgress
from virtex.training.saving import describe, log_saved, prepare_directory, save
from virtex.training.scalars import SCALARS, read_curves
from virtex.training.setup import (
    PretrainOptions,
    Run,
    begin,
    evaluations,
    open_with_progress,
    plan_or_refusal,
    preflight,
    prepare,
    retention,
    samples_seen,
    shared_memory_needed,
)
from virtex.training.step_log import log_forecast, log_step
from virtex.training.summary import summarize
from virtex.training.validation import samples_logged, validate_and_log


def pretrain(options: PretrainOptions) -> int:
    """Start or resume a run and train to its last iteration; returns the exit status.

    It is `STOPPED` if a signal asked to stop; then the state was saved.
    """
    process = read_environment()
    with ExitStack() as stack:
        stack.enter_context(_translate_file_errors(options.directory))
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
        data = open_with_progress(options, world, watchdog)
        options = replace(options, config=data.config)
        lock_warning = None
        if world.main and not options.preflight_only:
            lock_warning = stack.enter_context(locked(options.directory))
        watchdog.report("reading the checkpoint and a sample of images")
        prepared = prepare(options, data, world, process.attempt)
        if isinstance(prepared, UserError):
            return _refused(prepared, world, options.command)
        options, data, start = prepared
        watchdog.report("reading the data of the evaluation")
        plan, refusal = plan_or_refusal(options, world)
        if refusal is not None:
            return _refused(refusal, world, options.command)
        watchdog.report("building the model")
        with translate_memory_errors(options.config, world):
            state, taken = begin(options, world, start, data)
        seen, fresh = samples_seen(options.config, data, start), start.state is None
        # Without the state, which is as large as model and optimizer.
        notes, cautions = (*start.notes, *taken.notes), (*start.cautions, *taken.cautions)
        start = replace(start, state=None, notes=notes, cautions=cautions)
        watchdog.report("preflight")
        reports = preflight(options, world, data, state)
        if options.preflight_only:
            if world.main:
                print("\n".join(reports))
            return 0
        if fresh:
            progress = PreparationProgress(watchdog, main=world.main)
            counted = count_for(state.objective, data, world, progress.report)
            start = replace(start, notes=(*start.notes, *counted))
        with translate_memory_errors(options.config, world):
            state = replace(state, parallel=data_parallel(state.objective, world))
        # Without a shared file system every machine needs a place for its log.
        options.directory.mkdir(parents=True, exist_ok=True)
        watchdog.log = options.directory / f"log_rank{world.rank}.txt"
        logger = RunLogger(options.directory, rank=world.rank, first=start.iteration + 1)
        run = Run(
            options=options,
            world=world,
            watchdog=watchdog,
            request=request,
            logger=stack.enter_context(closing(logger)),
            data=data,
            state=state,
            retention=retention(options, start),
            saver=BackgroundSaver(),
            seen=seen,
            evaluation=evaluations(options, plan),
        )
        with _logged_errors(run, shared_memory):
            prepare_directory(run, save_weights=options.init_from is not None and fresh)
            if lock_warning is not None:
                logger.warning(lock_warning)
            _introduce(run, start, reports)
            restore_evaluations(run)
            status = _train(run, start)
            if data.remote is not None:
                logger.info(f"data: {data.remote.statistics}")
        return status


def _refused(error: UserError, world: World, command: str) -> int:
    """The exit status of every process; the first one prints the message.

    With several processes it is returned, so that no agent starts them again for the same answer.
    """
    if world.size == 1:
        raise error
    if world.main:
        print(f"{command}: error: {error}", file=sys.stderr, flush=True)
    world.wait()  # else the end of the connection could be noticed before the answer
    return error.exit_status


@contextmanager
def _translate_file_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"reading or writing failed: {error}. Free disk space or correct the permissions of "
            f"{directory}, then continue with --resume-from latest"
        ) from error


@contextmanager
def _logged_errors(run: Run, shared_memory: int) -> Iterator[None]:
    """Explain, announce and log an error in this context; at its end, no checkpoint is partial."""
    try:
        with (
            translate_shared_memory_errors(shared_memory),
            translate_worker_errors(),
            translate_memory_errors(run.options.config, run.world),
        ):
            yield
    except (Exception, KeyboardInterrupt) as error:
        # First, as what follows may take long.
        run.watchdog.announce(error)
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        run.logger.log_error(text)
        raise
    finally:
        with suppress(UserError):
            run.saver.finish()


def _introduce(run: Run, start: ResumePoint, reports: Sequence[str]) -> None:
    """Log the model, the device, the data and the starting point."""
    options, world, logger, state = run.options, run.world, run.logger, run.state
    parameters = sum(p.numel() for p in state.objective.parameters())
    logger.info(f"run directory: {options.directory}")
    logger.info(f"device: {world.device}, {world.size} process(es), precision: {state.precision}")
    if world.device.type == "cpu":
        advice = busy_cores_advice(torch.get_num_threads(), available_cores(), machine_load())
        if advice is not None:
            logger.warning(advice)
    logger.info(f"checkpoints: {describe(run.retention)}")
    logger.info(f"model: {options.config.model.name}, {parameters / 1e6:.1f} M parameters")
    visual, findings = state.objective.visual, run.data.findings
    for line in filter(None, (visual.note, *run.data.report, *findings.report, *start.notes)):
        logger.info(line)
    for line in (*findings.warnings, *start.cautions):
        logger.warning(line)
    plan = run.evaluation.plan
    for line in (*reports, *(() if plan is None else plan.report)):
        logger.info(line)
    logger.info(samples_logged(options.config))
    logger.info(run.seen.describe(options.config.optim.iterations))


def _train(run: Run, start: ResumePoint) -> int:
    """Train to the last iteration, or until a signal asks to stop; returns the exit status."""
    optim, last = run.options.config.optim, run.options.config.optim.iterations
    if not _finish_interrupted(run, start):
        return _stop(run, start.iteration)
    if start.iteration >= last:
        key = "NUM_ITERATIONS" if run.data.num_epochs is None else "NUM_EPOCHS"
        run.logger.info(f"all {last} iterations are done already; OPTIM.{key} sets more")
    if run.options.debug_rank is not None:
        breakpoint()  # of the process that was asked for; the others pass
    traffic = Traffic()
    traffic.watch(run.state.parallel)
    meter, forecast = Meter(run.world.size, traffic), Forecast(last, run.options.checkpoint_every)
    validated = start.iteration
    first = start.iteration + 1
    # Closed, or else an error would hold on to the loader's workers.
    with closing(_training_batches(run, first)) as batches:
        steps = optimize(
            run.state,
            batches,
            clip_grad_norm=optim.clip_grad_norm,
            max_nonfinite_steps=optim.max_nonfinite_steps,
            seed=run.options.config.random_seed,
            world=run.world,
            accumulate=optim.accumulate,
            first=first,
            last=last,
        )
        for step in steps:
            iteration = step.iteration
            meter.add(step)
            log_step(run, meter, step)
            log_forecast(run, forecast, step)
            log_saved(run)
            due = iteration == last or _is_due(run.options.checkpoint_every, validated, iteration)
            run.watchdog.report(f"iteration {iteration}, asking whether to stop")
            if run.world.any(bool(run.request)):
                save(run, iteration, validated=not due)
                return _stop(run, iteration)
            # Weights that give no finite gradient may be bad already: wait for a step that is
            # applied.
            if due and (step.applied or iteration == last):
                validated = iteration
                if not _judge(run, iteration):
                    return _stop(run, iteration)
    return _finish(run, trained=start.iteration < last)


def _judge(run: Run, iteration: int) -> bool:
    """Validate the weights, evaluate them if that is due, and save; False if asked to stop."""
    validated = validate_and_log(run, iteration)
    finished = validated and evaluate_and_log(run, iteration)
    save(run, iteration, validated=validated)
    return finished


def _finish_interrupted(run: Run, start: ResumePoint) -> bool:
    """Make up for a validation or evaluation that was stopped; False if asked to stop again."""
    if start.validation_due:
        return _judge(run, start.iteration)
    if start.iteration == 0 or not run.evaluation.is_due(start.iteration):
        return True
    finished = evaluate_and_log(run, start.iteration)
    save(run, start.iteration, validated=True)
    return finished


def _training_batches(run: Run, first: int) -> Generator[Batch, None, None]:
    """This process's batches from iteration `first` on; reports the phases of each iteration."""
    options, watchdog, logger, remote = run.options, run.watchdog, run.logger, run.data.remote
    with ExitStack() as stack:
        prefetcher = None
        if remote is not None:
            prefetcher = Prefetcher(
                remote, logger=logger, watchdog=watchdog, stop_request=run.request
            )
            stack.enter_context(closing(prefetcher))
        loaded = training_batches(
            *(options.config, run.data, run.world),
            workers=options.workers,
            first=first,
            prefetcher=prefetcher,
        )
        stack.enter_context(closing(loaded))
        for iteration in count(first):
            watchdog.report(f"iteration {iteration}, waiting for data")
            batch, bad = next(loaded)
            for error in bad:
                logger.warning_once(f"skipped {error}")
            if prefetcher is not None:
                prefetcher.log_retries()
            watchdog.report(f"iteration {iteration}, training step")
            yield batch


def _is_due(every: int, validated: int, iteration: int) -> bool:
    """Whether a multiple of `every` lies after the last validation, up to `iteration`."""
    return iteration // every > validated // every


def _stop(run: Run, iteration: int) -> int:
    """Finish saving, and return the exit status of a run that was stopped and can be resumed."""
    run.watchdog.report(f"iteration {iteration}, saving before the stop")
    run.saver.finish()
    log_saved(run)
    # The others must not end first: an agent would take that for the end of the job.
    run.world.wait()
    name = run.request.signal.name if run.request.signal is not None else "a signal elsewhere"
    run.logger.info(
        f"stopped by {name} after iteration {iteration}; continue with --resume-from latest"
    )
    return STOPPED


def _finish(run: Run, *, trained: bool) -> int:
    """Finish saving, and return the exit status of a run that has done its last iteration."""
    run.saver.finish()
    log_saved(run)
    # No process has succeeded before the last checkpoint is saved.
    run.watchdog.report("waiting until the last checkpoint is saved")
    run.world.wait()
    log_best(run)
    if run.world.main and trained:
        _conclude(run)
    return 0


def _conclude(run: Run) -> None:
    """Log what the run has learnt, and what to do with it."""
    directory, iterations = run.options.directory, run.options.config.optim.iterations
    lines = summarize(
        read_curves(directory / SCALARS),
        checkpoint_path(directory, iterations),
        captions=find_task(run.options.config.model.name).captioning_head is not None,
    )
    for line in lines:
        run.logger.info(line)

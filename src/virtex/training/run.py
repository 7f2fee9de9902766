"""The pretraining job of one process: what happens between a configuration and its checkpoints."""

import resource
import sys
import traceback
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from virtex import __version__
from virtex.build import data as build_tasks
from virtex.build import model as build
from virtex.checkpoints import file as checkpoint
from virtex.checkpoints import run_directory as directory
from virtex.checkpoints.background import BackgroundSaver
from virtex.checkpoints.lock import locked
from virtex.checkpoints.run_directory import Start
from virtex.checkpoints.state import vocabulary_state
from virtex.config import loading as settings
from virtex.data import subset
from virtex.data.loader import translate_worker_errors
from virtex.distributed.debugging import debugger
from virtex.distributed.environment import find_place
from virtex.distributed.shared_memory import lack_of_shared_memory_as_error
from virtex.distributed.signals import STOPPED, StopRequest, stop_requests
from virtex.distributed.traffic import Traffic
from virtex.distributed.watchdog import Heartbeat
from virtex.distributed.world import World, connect
from virtex.errors import RunError, UserError
from virtex.files import whole_file
from virtex.plots.contact_sheet import contact_sheet
from virtex.tasks.base import Objective
from virtex.training.logger import Journal
from virtex.training.loop import Step, optimize, validate
from virtex.training.out_of_memory import lack_of_memory_as_error
from virtex.training.progress import Meter, losses_text, progress_line, training_scalars
from virtex.training.setup import (
    Job,
    Parts,
    begin,
    preflight,
    retention,
    shared_memory_needed,
    start_or_refusal,
)

SAMPLES = 8
"""How many validation images the page of captions shows."""


class Run:
    """One process's part of a run: its job, its place, and what it writes."""

    def __init__(
        self,
        job: Job,
        world: World,
        heartbeat: Heartbeat,
        request: StopRequest,
        parts: Parts,
        retention: checkpoint.Retention,
        shared_memory: int,
    ) -> None:
        self.job = job
        self.world = world
        self.heartbeat = heartbeat
        self.request = request
        self.parts = parts
        self.retention = retention
        self.shared_memory = shared_memory
        self.saver = BackgroundSaver()


def pretrain(job: Job) -> int:
    """Train from where the run stands to its last iteration; returns the exit status.

    `STOPPED` where a signal asked to stop: what was reached is saved.
    """
    place = find_place()
    with ExitStack() as stack:
        stack.enter_context(_failures_of_files(job.directory))
        request = stack.enter_context(stop_requests())
        connection = connect(
            place,
            gpus=job.gpus,
            limits=job.limits,
            stopping=lambda: bool(request),
            parent=request.parent,
        )
        world, heartbeat = stack.enter_context(connection)
        if job.terminal is not None:
            # Before the others hear of an error, and end.
            stack.enter_context(debugger(job.terminal, here=place.rank == job.debug_rank))
        shared_memory = shared_memory_needed(job, world)
        stack.enter_context(lack_of_shared_memory_as_error(shared_memory))
        heartbeat.at("reading the annotations")
        data = build.data(job.config)
        warning = None
        if world.main and not job.preflight_only:
            warning = stack.enter_context(locked(job.directory))
        heartbeat.at("reading the checkpoint")
        start = world.from_main(lambda: start_or_refusal(job, data, place.attempt))
        if isinstance(start, UserError):
            return _refused(start, world)
        heartbeat.at("building the model")
        with lack_of_memory_as_error(job.config, world):
            parts = begin(job, world, data, start)
        start = start.without_state()  # it is as large as model and optimizer
        heartbeat.at("preflight")
        notes = preflight(job, world, parts)
        if job.preflight_only:
            if world.main:
                print("\n".join(notes))
            return 0
        run = Run(job, world, heartbeat, request, parts, retention(job, start), shared_memory)
        _prepare_directory(run)
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
            f"reading or writing failed: {error}. Make room or mend the permissions of "
            f"{directory}, then go on with --resume-from latest"
        ) from error


def _record(run: Run, start: Start, cautions: list[str], notes: list[str]) -> int:
    """Train, with a journal that also gets the error that ends the run."""
    job, world = run.job, run.world
    first = start.iteration + 1
    with closing(Journal(job.directory, rank=world.rank, first=first)) as journal:
        run.heartbeat.log = job.directory / f"log_rank{world.rank}.txt"
        try:
            for line in cautions:
                journal.warn(line)
            _introduce(run, journal, start)
            for line in notes:
                journal.say(line)
            with (
                lack_of_shared_memory_as_error(run.shared_memory),
                translate_worker_errors(),
                lack_of_memory_as_error(job.config, world),
            ):
                status = _train(run, journal, start)
            run.saver.finish()
            _tell_saved(run, journal)
            for line in run.parts.data.fetched:
                journal.say(line)
            if status == 0:
                # No process has succeeded before the last checkpoint is there.
                run.heartbeat.at("waiting until the last checkpoint is saved")
                run.world.wait()
        except (Exception, KeyboardInterrupt) as error:
            # First, as what follows may take long.
            run.heartbeat.announce(error)
            journal.record(str(error) if isinstance(error, UserError) else traceback.format_exc())
            raise
        finally:
            # What is being written when something else fails becomes whole.
            with suppress(UserError):
                run.saver.finish()
        return status


def _train(run: Run, journal: Journal, start: Start) -> int:
    job, config = run.job, run.job.config
    first, last = start.iteration + 1, config.optim.num_iterations
    if start.validation_due and _validate(run, journal, start.iteration):
        _save(run, start.iteration, validated=True)
    if first > last:
        journal.say(f"all {last} iterations are done already; OPTIM.NUM_ITERATIONS sets more")
    if job.debug_rank is not None:
        breakpoint()  # of the process that was asked for; the others pass
    traffic = Traffic()
    steps = _steps(run, journal, traffic, first)
    # Else an error would hold on to the loader's workers.
    with closing(steps):
        return _follow(run, journal, Meter(run.world.size, traffic), steps)


def _follow(run: Run, journal: Journal, meter: Meter, steps: Iterator[Step]) -> int:
    """Tell of each step; validate, save and stop where it is time."""
    job, last = run.job, run.job.config.optim.num_iterations
    due = False
    for step in steps:
        meter.add(step)
        if not step.applied:
            journal.warn(f"iteration {step.iteration}: gradient not finite, step not applied")
        if step.iteration % job.log_every == 0 or step.iteration == last:
            _tell_progress(run, journal, meter, step)
        _tell_saved(run, journal)
        due = due or step.iteration % job.checkpoint_every == 0
        run.heartbeat.at(f"iteration {step.iteration}, asking whether to stop")
        stopping = run.world.any(bool(run.request))
        # Weights that give no finite gradient may be bad already: wait for a step that is applied.
        if ((due and step.applied) or step.iteration == last) and not stopping:
            due = not _validate(run, journal, step.iteration)
            stopping = due
            _save(run, step.iteration, validated=not due)
        elif stopping:
            _save(run, step.iteration, validated=not due)
        if stopping:
            return _stop(run, journal, step.iteration)
    return 0


def _stop(run: Run, journal: Journal, iteration: int) -> int:
    """Leave the run where it can go on."""
    run.heartbeat.at(f"iteration {iteration}, saving before the stop")
    run.saver.finish()
    _tell_saved(run, journal)
    # The others must not end first: an agent would take that for the end of the job.
    run.world.wait()
    name = run.request.signal.name if run.request.signal is not None else "a signal elsewhere"
    journal.say(f"stopped by {name} after iteration {iteration}; go on with --resume-from latest")
    return STOPPED


def _steps(run: Run, journal: Journal, traffic: Traffic, first: int) -> Generator[Step, None, None]:
    config, parts = run.job.config, run.parts
    parallel = distributed(parts.objective, run.world)
    traffic.watch(parallel)
    batches = build.training_batches(
        *(config, parts.data, run.world),
        workers=run.job.workers,
        first=first,
        on_bad_image=journal.warn_once,
        say=journal.say,
        reached=run.heartbeat.at,
        stopping=lambda: bool(run.request),
    )
    with closing(batches):
        yield from optimize(
            parts.objective,
            batches,
            parts.optimizer,
            build.schedule(config),
            scaler=parts.scaler,
            precision=parts.precision,
            clip_grad_norm=config.optim.clip_grad_norm,
            max_nonfinite_steps=config.optim.max_nonfinite_steps,
            seed=config.random_seed,
            world=run.world,
            parallel=parallel,
            accumulate=config.optim.accumulate,
            first=first,
            last=config.optim.num_iterations,
            reached=run.heartbeat.at,
        )


def _tell_progress(run: Run, journal: Journal, meter: Meter, step: Step) -> None:
    losses = _mean_over_processes(step.losses, run.world)
    speed = meter.speed(_memory_gb(run.world))
    last = run.job.config.optim.num_iterations
    journal.scalars(step.iteration, training_scalars(step, losses))
    journal.scalars(step.iteration, speed)
    journal.say(progress_line(step.iteration, last, losses, speed, meter.step_seconds))
    meter.restart()


def _tell_saved(run: Run, journal: Journal) -> None:
    for path in run.saver.finished():
        journal.say(f"saved {path}")
        checkpoint.remove_old(run.job.directory, run.retention)


def _validate(run: Run, journal: Journal, iteration: int) -> bool:
    """Validate, and write down what came out; False where a request to stop came first."""
    parts = run.parts

    def watched() -> Generator[Mapping[str, Tensor], None, None]:
        for batch in build.validation_batches(
            *(run.job.config, parts.data, run.world),
            workers=run.job.workers,
            on_bad_image=journal.warn_once,
        ):
            run.heartbeat.at(f"validation after iteration {iteration}")
            yield batch

    run.heartbeat.at(f"validation after iteration {iteration}")
    # The statistics that are saved, and so judged, are those of the first process.
    run.world.broadcast(list(parts.objective.buffers()))
    with closing(watched()) as batches:
        means = validate(
            parts.objective,
            batches,
            precision=parts.precision,
            sum_over_processes=run.world.sum,
            stopping=lambda: bool(run.request),
        )
    if means is None:
        return False
    if not means:
        journal.warn(f"validation after iteration {iteration}: no item to predict, so no loss")
        return True
    scalars = {"val/loss": sum(means.values())} | {f"val/{k}": v for k, v in means.items()}
    journal.scalars(iteration, scalars)
    journal.say(f"validation after iteration {iteration}: {losses_text(means)}")
    if run.world.main:
        _show_samples(run, journal, iteration)
    return True


def _show_samples(run: Run, journal: Journal, iteration: int) -> None:
    parts = run.parts
    batch = build.samples(parts.data, SAMPLES)
    if batch is None:
        return
    describe = build_tasks.describe(run.job.config, parts.objective, parts.data.vocabulary)
    said = describe({name: tensor.to(run.world.device) for name, tensor in batch.items()})
    pictures = [image.permute(1, 2, 0).numpy() for image in batch["image"]]
    sheet = contact_sheet(pictures, [description.predicted for description in said])
    rows = "\n".join(f"| {one.predicted} | {one.given} |" for one in said)
    journal.page(iteration, "val/samples", sheet, f"| predicted | given |\n|---|---|\n{rows}")


def _save(run: Run, iteration: int, *, validated: bool) -> None:
    """Begin to save, on the main process."""
    if not run.world.main:
        return
    run.heartbeat.at(f"iteration {iteration}, copying what is saved")
    parts = run.parts
    weights = parts.objective.state_dict()
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise RunError(
            f"iteration {iteration}: weights are not finite ({', '.join(broken[:3])}), so were "
            "not saved over good ones; lower OPTIM.CNN_LR and OPTIM.LR, and go on with "
            "--resume-from latest"
        )
    state = {
        "model": weights,
        "optimizer": parts.optimizer.state_dict(),
        "scaler": parts.scaler.state_dict(),
        "iteration": iteration,
        "validated": validated,
        # A run that keeps all does not lose them when it resumes without saying so again.
        "untouched": iteration if run.retention.recent is None else run.retention.untouched,
        "config": run.job.config.model_dump(mode="json", by_alias=True),
        **vocabulary_state(parts.data.vocabulary),
        "data": parts.data.contents.to_plain(),
        # torch's version is of a class of its own, which a reader of plain values refuses.
        "versions": {"virtex": __version__, "torch": str(torch.__version__)},
    }
    run.saver.save(checkpoint.checkpoint_path(run.job.directory, iteration), state)


def _prepare_directory(run: Run) -> None:
    job = run.job
    # Without a shared file system every machine needs a place for its log.
    job.directory.mkdir(parents=True, exist_ok=True)
    if run.world.main:
        run.heartbeat.at("taking fingerprints of the data")
        _ = run.parts.data.contents  # kept, for all checkpoints
        checkpoint.remove_partial_files(job.directory)
        with whole_file(job.directory / directory.CONFIG) as file:
            file.write(settings.dump(job.config).encode())
        subset.write_or_remove(job.directory / subset.SUBSET, run.parts.data.subset)
        if job.init_from is not None and run.parts.fresh:
            # So that a run that ends before its first checkpoint goes on from these weights.
            _save(run, 0, validated=True)
            run.saver.finish()
            run.saver.finished()
    run.world.wait()


def _introduce(run: Run, journal: Journal, start: Start) -> None:
    job, world, parts = run.job, run.world, run.parts
    count = sum(p.numel() for p in parts.objective.parameters())
    journal.say(f"run directory: {job.directory}")
    journal.say(f"device: {world.device}, {world.size} process(es), precision: {parts.precision}")
    journal.say(f"checkpoints: {_kept(run.retention)}")
    journal.say(f"model: {job.config.model.name}, {count / 1e6:.1f} M parameters")
    for line in parts.data.report:
        journal.say(line)
    for line in start.notes:
        journal.say(line)
    for line in start.cautions:
        journal.warn(line)


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

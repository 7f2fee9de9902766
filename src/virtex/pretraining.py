"""The pretraining job of one process: what happens between a configuration and its checkpoints."""

import resource
import sys
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from virtex import __version__, build, build_tasks, settings
from virtex.config import Config
from virtex.data import subset_manifest
from virtex.data.loader import lost_workers_as_errors
from virtex.errors import RunError, UserError
from virtex.evaluation.contact_sheet import contact_sheet
from virtex.models.sync_batch_norm import synchronise_batch_norm
from virtex.progress import Meter, losses_text, progress_line, training_scalars
from virtex.restore import (
    check_same_run,
    load_optimizer,
    load_weights,
    saved_config,
    vocabulary_state,
)
from virtex.runtime import checkpoint, directory
from virtex.runtime.directory import Start
from virtex.runtime.journal import Journal
from virtex.runtime.precision import Precision, choose_precision
from virtex.runtime.world import World, check_gpus, connect
from virtex.tasks.base import Objective
from virtex.training import optimize, validate

SAMPLES = 8
"""How many validation images the page of captions shows."""


@dataclass(frozen=True)
class Job:
    """How to run; the configuration says what."""

    config: Config
    directory: Path
    overridden: tuple[str, ...]
    resume_from: str | None
    init_from: Path | None
    gpus: bool
    workers: int
    checkpoint_every: int
    keep_recent: int | None
    log_every: int


@dataclass(frozen=True)
class Parts:
    """The objects of a run."""

    objective: Objective
    optimizer: build.AnyOptimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    data: build.Data


def check(job: Job, *, gpus_per_machine: int) -> None:
    """Raise `UserError` for what can be seen to be wrong before any process is started."""
    check_gpus(gpus_per_machine)
    if job.resume_from is None:
        directory.check_free(job.directory)
    elif job.resume_from != directory.LATEST and not Path(job.resume_from).is_file():
        raise UserError(f"--resume-from {job.resume_from}: no such file")
    if job.init_from is not None and not job.init_from.is_file():
        raise UserError(f"--init-from {job.init_from}: no such file")
    given = job.resume_from is not None or job.init_from is not None
    build.check_backbone(job.config, weights_follow=given)


def pretrain(job: Job) -> int:
    """Train from where the run stands to its last iteration; returns the exit status."""
    with connect(gpus=job.gpus) as world:
        data = build.data(job.config)
        start = _start(job, data)
        parts = _parts(job, world, data, start)
        start = replace(start, state=None)  # it is as large as model and optimizer
        try:
            _prepare_directory(job, world, parts)
            _record(job, world, parts, start)
        except OSError as error:
            raise RunError(
                f"reading or writing failed: {error}. Make room or mend the permissions of "
                f"{job.directory}, then go on with --resume-from latest"
            ) from error
    return 0


def _record(job: Job, world: World, parts: Parts, start: Start) -> None:
    """Train, with a journal that also gets the error that ends the run."""
    first = start.iteration + 1
    with closing(Journal(job.directory, rank=world.rank, first=first)) as journal:
        try:
            _introduce(job, world, journal, parts, start)
            with lost_workers_as_errors():
                _train(job, world, journal, parts, first)
        except UserError as error:
            journal.record(str(error))
            raise


def _train(job: Job, world: World, journal: Journal, parts: Parts, first: int) -> None:
    config = job.config
    last = config.optim.num_iterations
    if first > last:
        journal.say(f"all {last} iterations are done already; OPTIM.NUM_ITERATIONS sets more")
    steps = optimize(
        parts.objective,
        build.training_batches(
            *(config, parts.data, world),
            workers=job.workers,
            first=first,
            on_bad_image=journal.warn_once,
        ),
        parts.optimizer,
        build.schedule(config),
        scaler=parts.scaler,
        precision=parts.precision,
        clip_grad_norm=config.optim.clip_grad_norm,
        max_nonfinite_steps=config.optim.max_nonfinite_steps,
        seed=config.random_seed,
        world=world,
        parallel=distributed(parts.objective, world, accumulate=config.optim.accumulate),
        accumulate=config.optim.accumulate,
        first=first,
        last=last,
    )
    meter = Meter(world.size)
    due = False
    for step in steps:
        meter.add(step)
        if not step.applied:
            journal.warn(f"iteration {step.iteration}: gradient not finite, step not applied")
        if step.iteration % job.log_every == 0 or step.iteration == last:
            losses = _mean_over_processes(step.losses, world)
            speed = meter.speed(_memory_gb(world))
            journal.scalars(step.iteration, training_scalars(step, losses))
            journal.scalars(step.iteration, speed)
            journal.say(progress_line(step.iteration, last, losses, speed, meter.step_seconds))
            meter.restart()
        due = due or step.iteration % job.checkpoint_every == 0
        # Weights that give no finite gradient may be bad already: wait for a step that is applied.
        if (due and step.applied) or step.iteration == last:
            due = False
            _validate(job, world, journal, parts, step.iteration)
            if world.main:
                path = _save(job, parts, step.iteration)
                journal.say(f"saved {path}")


def _validate(job: Job, world: World, journal: Journal, parts: Parts, iteration: int) -> None:
    batches = build.validation_batches(
        job.config, parts.data, world, workers=job.workers, on_bad_image=journal.warn_once
    )
    # The statistics that are saved, and so judged, are those of the first process.
    world.broadcast(list(parts.objective.buffers()))
    means = validate(
        parts.objective, batches, precision=parts.precision, sum_over_processes=world.sum
    )
    if not means:
        journal.warn(f"validation after iteration {iteration}: no item to predict, so no loss")
        return
    scalars = {"val/loss": sum(means.values())} | {f"val/{k}": v for k, v in means.items()}
    journal.scalars(iteration, scalars)
    journal.say(f"validation after iteration {iteration}: {losses_text(means)}")
    if world.main:
        _show_samples(job, world, journal, parts, iteration)


def _show_samples(job: Job, world: World, journal: Journal, parts: Parts, iteration: int) -> None:
    batch = build.samples(parts.data, SAMPLES)
    if batch is None:
        return
    describe = build_tasks.describe(job.config, parts.objective, parts.data.vocabulary)
    said = describe({name: tensor.to(world.device) for name, tensor in batch.items()})
    pictures = [image.permute(1, 2, 0).numpy() for image in batch["image"]]
    sheet = contact_sheet(pictures, [description.predicted for description in said])
    rows = "\n".join(f"| {one.predicted} | {one.given} |" for one in said)
    journal.page(iteration, "val/samples", sheet, f"| predicted | given |\n|---|---|\n{rows}")


def _save(job: Job, parts: Parts, iteration: int) -> Path:
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
        "config": job.config.model_dump(mode="json", by_alias=True),
        **vocabulary_state(parts.data.vocabulary),
        # torch's version is of a class of its own, which a reader of plain values refuses.
        "versions": {"virtex": __version__, "torch": str(torch.__version__)},
    }
    path = checkpoint.checkpoint_path(job.directory, iteration)
    checkpoint.save(path, state)
    if job.keep_recent is not None:
        checkpoint.remove_old(job.directory, job.keep_recent)
    return path


def _start(job: Job, data: build.Data) -> Start:
    """Where the run begins; raises `UserError` if a checkpoint is not of this run."""
    if job.resume_from is None:
        return Start(0, None, ())
    start = directory.find_start(job.directory, job.resume_from)
    if start.state is None:
        return start
    notes = check_same_run(start.state, job.config, data.vocabulary, asked_for=job.overridden)
    if saved_config(start.state).data.subset_manifest == job.config.data.subset_manifest:
        where = (
            job.directory if job.resume_from == directory.LATEST else Path(job.resume_from).parent
        )
        subset_manifest.check_unchanged(where / subset_manifest.SUBSET, data.subset)
    return Start(start.iteration, start.state, (*start.notes, *notes))


def _parts(job: Job, world: World, data: build.Data, start: Start) -> Parts:
    config = job.config
    torch.backends.cudnn.deterministic = config.cudnn_deterministic
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    torch.manual_seed(config.random_seed)
    given = start.state is not None or job.init_from is not None
    objective = build.objective(config, weights_follow=given)
    if job.init_from is not None:
        load_weights(objective, checkpoint.load(job.init_from), f"--init-from {job.init_from}")
    if start.state is not None:
        load_weights(objective, start.state, f"--resume-from {job.resume_from}")
    objective.to(world.device)
    if config.sync_bn and world.size > 1:
        objective.visual.cnn = synchronise_batch_norm(objective.visual.cnn, world.device)
    precision = choose_precision(config.amp, world.device)
    parts = Parts(
        objective=objective,
        optimizer=build.optimizer(config, objective),
        scaler=precision.gradient_scaler(),
        precision=precision,
        data=data,
    )
    if start.state is not None:
        load_optimizer(parts.optimizer, start.state["optimizer"])
        # Another precision had no scale to go on from, or has no use for one.
        if start.state["scaler"] and parts.scaler.is_enabled():
            parts.scaler.load_state_dict(start.state["scaler"])
    return parts


def _prepare_directory(job: Job, world: World, parts: Parts) -> None:
    # Without a shared file system every machine needs a place for its log.
    job.directory.mkdir(parents=True, exist_ok=True)
    if world.main:
        checkpoint.remove_partial_files(job.directory)
        path = job.directory / directory.CONFIG
        path.write_text(settings.dump(job.config), encoding="utf-8")
        subset_manifest.keep(job.directory / subset_manifest.SUBSET, parts.data.subset)
        if job.init_from is not None:
            # So that a run that ends before its first checkpoint goes on from these weights.
            _save(job, parts, 0)
    world.wait()


def _introduce(job: Job, world: World, journal: Journal, parts: Parts, start: Start) -> None:
    count = sum(p.numel() for p in parts.objective.parameters())
    journal.say(f"run directory: {job.directory}")
    journal.say(f"device: {world.device}, {world.size} process(es), precision: {parts.precision}")
    journal.say(f"model: {job.config.model.name}, {count / 1e6:.1f} M parameters")
    for line in parts.data.report:
        journal.say(line)
    for line in start.notes:
        journal.say(line)


def distributed(objective: Objective, world: World, *, accumulate: int) -> nn.Module:
    """`objective`, such that the processes' gradients become their mean in the backward pass."""
    if world.size == 1:
        return objective
    with warnings.catch_warnings():
        # torch 2.15 warns of `broadcast_buffers`; the name that it prefers is unknown to 2.11.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            objective,
            device_ids=[world.device] if world.device.type == "cuda" else None,
            # Batch-norm statistics are per process, as published; those of rank 0 are saved.
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            # torch cannot skip the exchange of a part's gradients in a static graph.
            static_graph=accumulate == 1,
        )


def _mean_over_processes(losses: Mapping[str, Tensor], world: World) -> dict[str, float]:
    values = world.sum(torch.stack(list(losses.values()))) / world.size
    return dict(zip(losses, values.tolist(), strict=True))


def _memory_gb(world: World) -> float:
    """Peak memory of this process, in GB: the GPU's where there is one, else resident memory."""
    if world.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9

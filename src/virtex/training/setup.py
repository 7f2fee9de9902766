"""From a job to the parts of its run: checked, found, built and restored before it starts."""

import hashlib
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from virtex.build import model as build
from virtex.checkpoints import file as checkpoint
from virtex.checkpoints import run_directory as directory
from virtex.checkpoints.run_directory import Start
from virtex.checkpoints.state import (
    check_same_data,
    check_same_run,
    load_optimizer,
    load_weights,
    saved_config,
)
from virtex.config.schema import Config
from virtex.data import subset
from virtex.distributed.environment import find_place
from virtex.distributed.preflight import Needs, facts, report, verdicts
from virtex.distributed.shared_memory import free_shared_memory, too_little
from virtex.distributed.world import Limits, World, check_gpus
from virtex.errors import RunError, UserError
from virtex.models.sync_batch_norm import synchronise_batch_norm
from virtex.tasks.base import Objective
from virtex.training.precision import Precision, choose_precision

DEFAULT_RECENT = 3
MILESTONE = 25_000
"""Which checkpoints are kept where `--keep-recent` does not say."""


@dataclass(frozen=True)
class Job:
    """How to run; the configuration says what.

    `keep_recent` is how many of the newest checkpoints are kept: 0 keeps all; None keeps
    `DEFAULT_RECENT`, and one every `MILESTONE` iterations. `accept_changed_data` lets a run resume
    on data that have changed. `debug_rank` is the process on which the debugger opens, on
    `terminal`; both are None for a run without it. `preflight_only` ends the run before its first
    iteration.
    """

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
    limits: Limits = field(default_factory=Limits)
    accept_changed_data: bool = False
    preflight_only: bool = False
    debug_rank: int | None = None
    terminal: Path | None = None


def retention(job: Job, start: Start) -> checkpoint.Retention:
    """Which checkpoints of the run are kept."""
    if job.keep_recent is not None:
        return checkpoint.Retention(job.keep_recent or None, untouched=start.untouched)
    return checkpoint.Retention(
        DEFAULT_RECENT, MILESTONE, job.checkpoint_every, untouched=start.untouched
    )


@dataclass(frozen=True)
class Parts:
    """The objects of a run; `fresh` says that it begins, and does not go on."""

    objective: Objective
    optimizer: build.AnyOptimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    data: build.Data
    fresh: bool


def check(job: Job, *, gpus_per_machine: int) -> None:
    """Raise `UserError` for what can be seen to be wrong before any process is started."""
    check_gpus(gpus_per_machine)
    started_anew = find_place().attempt > 0
    if job.resume_from is None and not job.preflight_only and not started_anew:
        directory.check_free(job.directory)
    elif job.resume_from not in (None, directory.LATEST) and not Path(job.resume_from).is_file():
        raise UserError(f"--resume-from {job.resume_from}: no such file")
    if job.init_from is not None and not job.init_from.is_file():
        raise UserError(f"--init-from {job.init_from}: no such file")
    given = job.resume_from is not None or job.init_from is not None
    build.check_backbone(job.config, weights_follow=given)


def find_start(job: Job, data: build.Data, attempt: int) -> Start:
    """Where the run begins; raises `UserError` if a checkpoint is not of this run.

    Processes that are started anew, in a later `attempt`, go on from what the run has saved.
    """
    resume_from = job.resume_from
    if attempt > 0 and directory.holds_run(job.directory):
        resume_from = directory.LATEST
    if resume_from is None:
        return Start(0, None, ())
    start = directory.find_start(job.directory, resume_from)
    if start.state is None:
        return start
    notes = check_same_run(start.state, job.config, data.vocabulary, asked_for=job.overridden)
    change = None
    if saved_config(start.state).data.subset_manifest == job.config.data.subset_manifest:
        where = job.directory if resume_from == directory.LATEST else Path(resume_from).parent
        change = subset.change(where / subset.SUBSET, data.subset)
    cautions = check_same_data(start.state, data.contents, change, accepted=job.accept_changed_data)
    return replace(start, notes=(*start.notes, *notes), cautions=tuple(cautions))


def start_or_refusal(job: Job, data: build.Data, attempt: int) -> Start | UserError:
    """As `find_start`, with an error of the input, which all processes need to know, as a value."""
    try:
        return find_start(job, data, attempt)
    except RunError:
        raise
    except UserError as error:
        return error


def begin(job: Job, world: World, data: build.Data, start: Start) -> Parts:
    """The run's objects, as they were where it starts."""
    config = job.config
    torch.backends.cudnn.deterministic = config.cudnn_deterministic
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    torch.manual_seed(config.random_seed)
    given = start.state is not None or job.init_from is not None
    objective = build.objective(config, weights_follow=given)
    if start.state is not None:
        load_weights(objective, start.state, "--resume-from")
    elif job.init_from is not None:
        load_weights(objective, checkpoint.load(job.init_from), f"--init-from {job.init_from}")
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
        fresh=start.state is None,
    )
    if start.state is not None:
        load_optimizer(parts.optimizer, start.state["optimizer"])
        # Another precision had no scale to go on from, or has no use for one.
        if start.state["scaler"] and parts.scaler.is_enabled():
            parts.scaler.load_state_dict(start.state["scaler"])
    return parts


def preflight(job: Job, world: World, parts: Parts) -> list[str]:
    """Check that all processes can work and are alike; a line on each, where there are several.

    Raises `UserError` with the same lines where one is not ready.
    """
    alike = {
        "configuration": _digest(job.config.model_dump_json().encode()),
        "training data": parts.data.training.fingerprint[:12],
        "validation data": parts.data.validation.fingerprint[:12],
        "precision": str(parts.precision),
    }
    needs = Needs(job.directory, _checkpoint_bytes(parts), _loader_bytes(job, world))
    told = world.gather(facts(world, alike, needs))
    found = verdicts(told)
    lines = report(told, found)
    if any(found):
        text = "not all processes are ready, so nothing was started:\n" + "\n".join(lines)
        raise UserError(text if world.main else f"rank {world.rank}: see what rank 0 says")
    return lines if world.size > 1 or job.preflight_only else []


def _checkpoint_bytes(parts: Parts) -> int:
    """About as much as a checkpoint takes: weights, averages of the gradients, slow weights."""
    weights = parts.objective.state_dict().values()
    trained = [p for p in parts.objective.parameters() if p.requires_grad]
    size: int = sum(t.nbytes for t in weights) + 2 * sum(p.nbytes for p in trained)
    return size


def shared_memory_needed(job: Job, world: World) -> int:
    """Bytes of shared memory that all loader workers of this machine need.

    Raises `UserError` where less is free.
    """
    needed = _loader_bytes(job, world)
    machine = socket.gethostname()
    together = sum(size for name, size in world.gather((machine, needed)) if name == machine)
    free = free_shared_memory()
    lines = world.gather(
        None if free is None or together <= free else f"{machine}: {too_little(together, free)}"
    )
    wrong = list(dict.fromkeys(line for line in lines if line is not None))
    if wrong:
        raise UserError("\n".join(wrong) if world.main else f"rank {world.rank}: see rank 0")
    return together


def _loader_bytes(job: Job, world: World) -> int:
    """What the images of the batches take that this process's workers hold ready.

    Two for each worker and one in use; during validation those of both splits.
    """
    side, rows = job.config.data.image_crop_size, job.config.optim.batch_size // world.size
    return 2 * (2 * job.workers + 1) * rows * 3 * side * side if job.workers else 0


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]

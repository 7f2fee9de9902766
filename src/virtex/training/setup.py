"""The preparation of a run: checks, the point to resume from, and the objects to train."""

import socket
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import torch

from virtex.build.data import PretrainingData, open_data
from virtex.build.images import pixel_settings
from virtex.build.initial_weights import (
    InitialWeights,
    Taken,
    check_initial_weights,
    take_weights,
)
from virtex.build.model import build_objective, check_backbone
from virtex.build.observer import Observer
from virtex.build.optimizer import (
    build_average,
    build_optimizer,
    build_schedule,
    estimate_checkpoint_bytes,
)
from virtex.build.pixel_choice import PixelChoice, adopt_pixels, choose_pixels
from virtex.build.token_counts import check_countable
from virtex.checkpoints import file
from virtex.checkpoints import run_directory as directory
from virtex.checkpoints.background import BackgroundSaver
from virtex.checkpoints.resuming import check_same_data, check_same_run
from virtex.checkpoints.run_directory import ResumePoint
from virtex.checkpoints.state import Checkpoint, load_optimizer, load_weights
from virtex.config.schema import Config
from virtex.data import subset
from virtex.distributed.environment import read_environment
from virtex.distributed.preflight import (
    Requirements,
    find_problems,
    inspect_process,
    report_lines,
)
from virtex.distributed.shared_memory import free_shared_memory, shared_memory_advice
from virtex.distributed.signals import StopRequest
from virtex.distributed.watchdog import Watchdog
from virtex.distributed.world import Timeouts, World, check_gpus
from virtex.errors import RunError, UserError
from virtex.evaluation.features import IMAGES_AT_ONCE
from virtex.models.sync_batch_norm import synchronise_batch_norm
from virtex.tasks.base import WEIGHT_PER_TOKEN
from virtex.training.best_checkpoint import BestCheckpoint
from virtex.training.evaluation_plan import LOWER_IS_BETTER, EvaluationPlan, open_plan
from virtex.training.logger import RunLogger
from virtex.training.loop import TrainState
from virtex.training.precision import choose_precision
from virtex.training.progress import PreparationProgress, print_notice
from virtex.training.samples import SamplesSeen

DEFAULT_RECENT = 3
MILESTONE = 25_000
"""How many of the newest checkpoints are kept by default, and one every so many iterations."""


@dataclass(frozen=True)
class PretrainOptions:
    """How to run what the configuration describes.

    `keep_recent` is how many of the newest checkpoints are kept: 0 keeps all; None keeps
    `DEFAULT_RECENT`, and one every `MILESTONE` iterations. `accept_changed_data` lets a run resume
    on data that have changed. `debug_rank` is the process on which the debugger opens, on
    `terminal`; both are None without a debugger. `preflight_only` ends the run before its first
    iteration. `command` names the command in messages.
    """

    config: Config
    directory: Path
    overridden: tuple[str, ...]
    resume_from: str | None
    init_from: InitialWeights | None
    gpus: bool
    workers: int
    checkpoint_every: int
    keep_recent: int | None
    log_every: int
    timeouts: Timeouts = field(default_factory=Timeouts)
    accept_changed_data: bool = False
    preflight_only: bool = False
    debug_rank: int | None = None
    terminal: Path | None = None
    command: str = "virtex pretrain"


@dataclass
class Evaluations:
    """The evaluations of a run: how often, of what, and the last and the best of them so far.

    `every` is 0 without evaluations. `plan` and `best` are None on other ranks than 0.
    """

    every: int
    iterations: int
    plan: EvaluationPlan | None
    best: BestCheckpoint | None
    last: int = 0

    def is_due(self, iteration: int) -> bool:
        """Whether a multiple of `every` lies after the last evaluation, up to `iteration`.

        At the end of the run one is due unless its weights are evaluated.
        """
        if not self.every or iteration <= self.last:
            return False
        ended = iteration >= self.iterations
        return ended or iteration // self.every > self.last // self.every


@dataclass(frozen=True)
class Run:
    """One process's part of a run: its options, its objects, and what reports and saves them."""

    options: PretrainOptions
    world: World
    watchdog: Watchdog
    request: StopRequest
    logger: RunLogger
    data: PretrainingData
    state: TrainState
    retention: file.Retention
    saver: BackgroundSaver
    seen: SamplesSeen
    evaluation: Evaluations


def retention(options: PretrainOptions, start: ResumePoint) -> file.Retention:
    if options.keep_recent is None:
        return file.Retention(DEFAULT_RECENT, MILESTONE, options.checkpoint_every, start.untouched)
    return file.Retention(options.keep_recent or None, untouched=start.untouched)


def check(options: PretrainOptions, *, gpus_per_machine: int) -> None:
    """Raise `UserError` for mistakes that can be found before any process is started."""
    check_gpus(gpus_per_machine)
    restarted = read_environment().attempt > 0
    resume_from = options.resume_from
    if resume_from is None and not options.preflight_only and not restarted:
        directory.check_free(options.directory)
    elif resume_from not in (None, directory.LATEST) and not Path(resume_from).is_file():
        raise UserError(f"--resume-from {resume_from}: no such file")
    if options.init_from is not None:
        check_initial_weights(options.init_from)
    given = options.resume_from is not None or options.init_from is not None
    check_backbone(options.config, weights_follow=given)


def open_with_progress(
    options: PretrainOptions, world: World, watchdog: Watchdog
) -> PretrainingData:
    """As `open_data`; reading annotations and indexing shards is reported to the watchdog."""
    watchdog.report("reading the annotations")
    progress = PreparationProgress(watchdog, main=world.main)
    return open_data(options.config, Observer(progress.indexed, print_notice))


def find_start(options: PretrainOptions, data: PretrainingData, attempt: int) -> ResumePoint:
    """The point from which the run starts; raises `UserError` for a checkpoint of another run.

    Processes that are restarted, in a later `attempt`, resume from the run's own checkpoints.
    """
    resume_from = options.resume_from
    if attempt > 0 and directory.holds_run(options.directory):
        resume_from = directory.LATEST
    if resume_from is None:
        return ResumePoint(0, None, ())
    start = directory.find_start(options.directory, resume_from)
    if start.state is None:
        return start
    saved = Checkpoint("--resume-from", start.state)
    notes = check_same_run(
        saved,
        adopt_pixels(options.config, saved.config),
        data.vocabulary,
        asked_for=options.overridden,
        num_epochs=data.num_epochs,
    )
    change = None
    if saved.config.data.subset_manifest == options.config.data.subset_manifest:
        where = options.directory if resume_from == directory.LATEST else Path(resume_from).parent
        change = subset.change(where / subset.SUBSET, data.subset)
    cautions = check_same_data(saved, data.contents, change, accepted=options.accept_changed_data)
    return replace(start, notes=(*start.notes, *notes), cautions=tuple(cautions))


def samples_seen(config: Config, data: PretrainingData, start: ResumePoint) -> SamplesSeen:
    """The count of samples of a run that starts or resumes at `start`."""
    before = 0
    if start.state is not None:
        saved = Checkpoint("--resume-from", start.state)
        before = saved.samples_seen
    return SamplesSeen(
        start.iteration, before, config.optim.batch_size, len(data.training), data.num_epochs
    )


def prepare(
    options: PretrainOptions, data: PretrainingData, world: World, attempt: int
) -> tuple[PretrainOptions, PretrainingData, ResumePoint] | UserError:
    """The point from which the run starts, with options and data that leave no choice open.

    On every process the error of rank 0 if all of them need it: a mistake in the input.
    """
    found = world.from_main(lambda: _start_or_refusal(options, data, attempt))
    if isinstance(found, UserError):
        return found
    start = found
    choice = world.from_main(lambda: _pixels_or_refusal(options, data, start))
    if isinstance(choice, UserError):
        return choice
    start = replace(
        start, notes=(*start.notes, *choice.notes), cautions=(*start.cautions, *choice.cautions)
    )
    # The choice alone, so that the preflight finds settings in which the processes differ.
    config = adopt_pixels(options.config, choice.config)
    return replace(options, config=config), data.with_pixels(pixel_settings(config.data)), start


def _start_or_refusal(
    options: PretrainOptions, data: PretrainingData, attempt: int
) -> ResumePoint | UserError:
    try:
        start = find_start(options, data, attempt)
        if start.state is None:
            check_countable(options.config, data)
    except RunError:
        raise
    except UserError as error:
        return error
    return start


def _pixels_or_refusal(
    options: PretrainOptions, data: PretrainingData, start: ResumePoint
) -> PixelChoice | UserError:
    try:
        saved = None if start.state is None else Checkpoint("--resume-from", start.state).config
        return choose_pixels(options.config, data, saved)
    except RunError:
        raise
    except UserError as error:
        return error


def plan_or_refusal(
    options: PretrainOptions, world: World
) -> tuple[EvaluationPlan | None, UserError | None]:
    """The evaluations on rank 0, if the run has any; on every rank the error, if they cannot be."""
    plan: EvaluationPlan | None = None
    refusal: UserError | None = None
    if world.main and options.config.evaluate.every:
        try:
            plan = open_plan(options.config, options.directory)
        except UserError as error:
            refusal = error
    return plan, world.from_main(lambda: refusal)


def evaluations(options: PretrainOptions, plan: EvaluationPlan | None) -> Evaluations:
    """The evaluations of a run, before any."""
    config, best = options.config, None
    if plan is not None:
        lower = plan.best == LOWER_IS_BETTER
        best = BestCheckpoint(options.directory, plan.best, lower_is_better=lower)
    return Evaluations(config.evaluate.every, config.optim.iterations, plan, best)


def begin(
    options: PretrainOptions, world: World, start: ResumePoint, data: PretrainingData
) -> tuple[TrainState, Taken]:
    """The objects that the run trains, in their state at `start`, not yet parallel.

    Also what was taken from the file of `--init-from`.
    """
    config = options.config
    torch.backends.cudnn.deterministic = config.cudnn_deterministic
    torch.backends.cudnn.benchmark = config.cudnn_benchmark
    torch.manual_seed(config.random_seed)
    taken, initial = Taken(()), options.init_from
    follow = start.state is not None or initial is not None
    objective = build_objective(config, weights_follow=follow)
    if start.state is not None:
        load_weights(objective, Checkpoint("--resume-from", start.state), WEIGHT_PER_TOKEN)
    elif initial is not None:
        taken = take_weights(objective, initial, config, data.vocabulary)
    objective.to(world.device)
    if config.sync_bn and world.size > 1:
        objective.visual.cnn = synchronise_batch_norm(objective.visual.cnn, world.device)
    precision = choose_precision(config.amp, world.device)
    optimizer, scaler = build_optimizer(config, objective), precision.gradient_scaler()
    if start.state is not None:
        load_optimizer(optimizer, start.state["optimizer"])
        # The earlier precision may have had no loss scale, and this one may need none.
        if start.state["scaler"] and scaler.is_enabled():
            scaler.load_state_dict(start.state["scaler"])
    schedule, average = build_schedule(config), build_average(config, objective)
    if average is not None and start.state is not None and "average" in start.state:
        average.load_state_dict(start.state["average"])
    return TrainState(objective, objective, optimizer, schedule, scaler, precision, average), taken


def preflight(
    options: PretrainOptions, world: World, data: PretrainingData, state: TrainState
) -> list[str]:
    """Check that all processes can work and agree; returns their reports if there are several.

    Raises `UserError` with the same lines if a process is not ready.
    """
    must_match = {
        "configuration": sha256(options.config.model_dump_json().encode()).hexdigest()[:12],
        "training data": data.training.fingerprint[:12],
        "validation data": data.validation.fingerprint[:12],
        "precision": str(state.precision),
    }
    disk = estimate_checkpoint_bytes(options.config, state.objective)
    requirements = Requirements(options.directory, disk, _loader_bytes(options, world))
    reports = world.gather(inspect_process(world, must_match, requirements))
    found = find_problems(reports)
    lines = report_lines(reports, found)
    if any(found):
        text = "not all processes are ready, so nothing was started:\n" + "\n".join(lines)
        raise UserError(text if world.main else f"rank {world.rank}: see the message of rank 0")
    return lines if world.size > 1 or options.preflight_only else []


def shared_memory_needed(options: PretrainOptions, world: World) -> int:
    """Bytes of shared memory that all loader workers of this machine need.

    Raises `UserError` if less is free on any machine.
    """
    needed = _loader_bytes(options, world)
    machine = socket.gethostname()
    together = sum(size for name, size in world.gather((machine, needed)) if name == machine)
    free = free_shared_memory()
    line = None
    if free is not None and together > free:
        line = f"{machine}: {shared_memory_advice(together, free)}"
    lines = dict.fromkeys(one for one in world.gather(line) if one is not None)
    if lines:
        text = "\n".join(lines)
        raise UserError(text if world.main else f"rank {world.rank}: see the message of rank 0")
    return together


def _loader_bytes(options: PretrainOptions, world: World) -> int:
    """Bytes of the images in this process's prefetched batches.

    These are two for each worker and one in use; during validation or an evaluation, also those of
    its images.
    """
    config = options.config
    side, rows = config.data.image_crop_size, config.optim.batch_size // world.size
    others = max(rows, IMAGES_AT_ONCE) if config.evaluate.every and world.main else rows
    images = (2 * options.workers + 1) * (rows + others)
    return images * 3 * side * side if options.workers else 0

"""Training of a head on images, in steps that can be stopped at any iteration and resumed.

Iterations count from 1. Everything random is a function of (seed, iteration, rank), so a resumed
training gives the weights of one that was not interrupted: bit for bit on the CPU.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from virtex._version import __version__
from virtex.checkpoints.file import (
    Retention,
    checkpoint_path,
    checkpoints,
    newest_readable,
    remove_old,
    remove_partial_files,
    save,
)
from virtex.distributed.data_parallel import data_parallel
from virtex.distributed.signals import Stopped, StopRequest
from virtex.distributed.world import World
from virtex.errors import RunError, UserError, first_line
from virtex.evaluation.backbones import EvaluatedBackbone
from virtex.evaluation.dense.reporting import Progress
from virtex.files import write_whole
from virtex.optim.schedules import Schedule
from virtex.training.precision import Precision

_KEPT = 2
"""The newest checkpoints that are kept; the one before the newest is for a damaged disk."""
LOSSES = "losses.csv"
_DIVERGED = "start again with a lower --learning-rate, in another --work-dir"


@dataclass(frozen=True)
class Plan:
    """How long and how fast is trained, where it is saved, and what it depends on.

    `settings` are plain values that identify the training: another one does not resume from it.
    """

    iterations: int
    learning_rate: float
    schedule: Schedule
    seed: int
    directory: Path
    save_every: int
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Surroundings:
    """Where a training runs, and whom it tells of its progress; `request` may ask to stop.

    `progress` is in iterations or images, and `report` names the phase to the watchdog.
    """

    world: World
    precision: Precision
    request: StopRequest
    progress: Progress
    report: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Progressed:
    """A training after `iteration` steps, with the losses of all of them (iterations, K)."""

    iteration: int
    losses: Tensor


def find_progress(plan: Plan, resume: bool) -> dict[str, Any] | None:
    """The state of the training in the plan's directory to resume from; None for a new one.

    Raises `UserError` where another training, or without `resume` any, has begun there.
    """
    directory = plan.directory
    found = newest_readable(directory)
    if found is None:
        if checkpoints(directory):
            raise UserError(f"no checkpoint in {directory} is intact; remove it to start again")
        return None
    path, state, _ = found
    if not resume:
        raise UserError(
            f"{directory} holds a training at iteration {state.get('iteration')}; continue it with "
            "--resume, remove the directory, or give another --work-dir"
        )
    lacking = [key for key in ("module", "optimizer", "losses", "settings") if key not in state]
    if lacking:
        raise UserError(f"{path} holds no {', '.join(lacking)}; give another --work-dir")
    saved = state["settings"]
    names = sorted({*saved, *plan.settings})
    changed = [
        f"{name} {saved.get(name)} there, {plan.settings.get(name)} now"
        for name in names
        if saved.get(name) != plan.settings.get(name)
    ]
    if changed:
        raise UserError(
            f"--resume: the training in {directory} had other settings ({'; '.join(changed)}); "
            "give those, or another --work-dir"
        )
    return state


def train(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Callable[[int], Iterator[Mapping[str, Tensor]]],
    plan: Plan,
    around: Surroundings,
    state: dict[str, Any] | None,
) -> Progressed:
    """Train a module from `state`, or from its first iteration, to the last.

    It has `loss_names`, and maps a batch to the loss of each name.

    `batches` gives those from an iteration (0 for the first) on. The gradient of the sum of the
    losses is the mean over the processes. Saves every `save_every` iterations, at the end, when
    asked to stop, which raises `Stopped`, and before it raises an error of `batches`. Raises
    `RunError` if a loss is not finite.
    """
    names: Sequence[str] = module.loss_names  # type: ignore[assignment]
    losses = torch.zeros(plan.iterations, len(names))
    first = 0
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["iteration"])
        losses[:first] = state["losses"]
    parallel = data_parallel(module, around.world)
    module.train()
    around.progress.skip(first)
    saved, done = first, Progressed(first, losses[:first])
    remaining = batches(first) if first < plan.iterations else iter(())
    for iteration in range(first + 1, plan.iterations + 1):
        around.report(f"training, iteration {iteration}")
        try:
            batch = next(remaining)
        except UserError:  # a bad image, after which the training can be resumed
            if done.iteration > saved:
                _save(module, optimizer, names, plan, around, done)
            raise
        _seed(plan.seed, around.world.rank, iteration)
        rate = plan.learning_rate * plan.schedule(iteration - 1)
        losses[iteration - 1] = _step(parallel, optimizer, batch, names, rate, around, iteration)
        done = Progressed(iteration, losses[:iteration])
        total = float(losses[max(iteration - 20, 0) : iteration].sum(dim=1).mean())
        around.progress.advance(1, f"loss {total:.4f}")
        stopping = around.world.any(bool(around.request))
        if stopping or iteration % plan.save_every == 0 or iteration == plan.iterations:
            _save(module, optimizer, names, plan, around, done)
            saved = iteration
        if stopping and iteration < plan.iterations:
            raise Stopped(
                f"stopped by a signal after iteration {saved} of {plan.iterations}, which is saved "
                f"in {plan.directory}; continue with --resume"
            )
    return Progressed(plan.iterations, losses)


def _step(
    parallel: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, Tensor],
    names: Sequence[str],
    learning_rate: float,
    around: Surroundings,
    iteration: int,
) -> Tensor:
    """Take a step; returns the mean of each loss over the processes, (K,) on the CPU."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.zero_grad()
    device = around.world.device
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    with around.precision.autocast():
        found = parallel(moved)
    stacked = torch.stack([found[name].float() for name in names])
    mean = around.world.sum(stacked.detach().clone()) / around.world.size
    if not bool(mean.isfinite().all()):
        values = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(names, mean.tolist(), strict=True)
        )
        raise RunError(
            f"training diverged: a loss is not finite in iteration {iteration} ({values}, learning "
            f"rate {learning_rate:.3g}); {_DIVERGED}"
        )
    stacked.sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return mean.cpu()


def _seed(seed: int, rank: int, iteration: int) -> None:
    (value,) = np.random.SeedSequence([seed, rank, iteration]).generate_state(1, np.uint64)
    torch.manual_seed(int(value >> np.uint64(1)))  # torch takes 64-bit seeds as signed


def _save(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    names: Sequence[str],
    plan: Plan,
    around: Surroundings,
    done: Progressed,
) -> None:
    """Write the checkpoint of an iteration and the table of losses, on the main process."""
    if not around.world.main:
        return
    around.report(f"iteration {done.iteration}, saving")
    weights = module.state_dict()
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise RunError(
            f"training diverged: after iteration {done.iteration} weights are not finite, so they "
            f"were not saved; {_DIVERGED}"
        )
    state = {
        "module": weights,
        "optimizer": optimizer.state_dict(),
        "iteration": done.iteration,
        "losses": done.losses.clone(),
        "settings": dict(plan.settings),
        "versions": {"virtex": __version__, "torch": str(torch.__version__)},
    }
    remove_partial_files(plan.directory)
    save(checkpoint_path(plan.directory, done.iteration), state)
    remove_old(plan.directory, Retention(_KEPT))
    rows = [",".join(("iteration", *names))]
    for iteration, values in enumerate(done.losses.tolist(), start=1):
        rows.append(",".join((str(iteration), *(f"{value:.6g}" for value in values))))
    write_whole(plan.directory / LOSSES, ("\n".join(rows) + "\n").encode())


@contextmanager
def interrupts_as_requests(request: StopRequest) -> Iterator[None]:
    """Let the first SIGINT in this context ask to stop; a second one ends the work at once.

    Only the main thread gets interrupts.
    """
    before = signal.getsignal(signal.SIGINT)
    elsewhere = threading.current_thread() is not threading.main_thread()
    if elsewhere or before == signal.SIG_IGN:  # of a shell's background job
        yield
        return

    def note(number: int, _: object) -> None:
        request.note(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_FLAGS = {"--resume-from latest": "--resume", "--serialization-dir": "--work-dir"}


@contextmanager
def flags_of_evaluate() -> Iterator[None]:
    """Name the flags of `virtex evaluate` in errors that name those of `virtex pretrain`.

    A GPU whose memory is full becomes a `RunError`.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the GPU's memory is too small ({first_line(error)[:200]}); give a smaller "
            "--batch-size, smaller images or, for detection, more --processes"
        ) from error
    except UserError as error:
        text = str(error)
        for theirs, ours in _FLAGS.items():
            text = text.replace(theirs, ours)
        if text == str(error):
            raise
        kind = RunError if error.exit_status == RunError.exit_status else UserError
        raise kind(text) from error


def loss_line(losses: Tensor) -> str:
    """How the sum of losses (iterations, K) has changed, over tenths of the training."""
    total = losses.sum(dim=1)
    count = max(min(10, len(total) // 2), 1)
    return (
        f"trained for {len(total)} iterations: loss {float(total[:count].mean()):.4f} (mean of the "
        f"first {count}) to {float(total[-count:].mean()):.4f} (of the last {count})"
    )


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters, without weight decay for those of batch norms, as detectron2 does."""
    normal: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for part in module.modules():
        is_norm = type(part).__name__.endswith(("BatchNorm2d", "SyncBatchNorm"))
        for parameter in part.parameters(recurse=False):
            if parameter.requires_grad:
                (norms if is_norm else normal).append(parameter)
    return [
        {"params": normal, "weight_decay": weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]


def working_directory(root: Path, backbone: EvaluatedBackbone) -> Path:
    """The directory of a backbone's training: its name, and the start of its weights' hash."""
    stem = backbone.name if backbone.path is None else backbone.path.stem
    return root / f"{stem}-{backbone.sha256[:8]}"

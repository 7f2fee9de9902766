"""Evaluation during a run, by the protocols of `virtex evaluate`, on the weights that are saved.

Rank 0 evaluates while the other processes wait. After each batch of images, and each step of a
classifier's fit, all of them report to their watchdogs and ask whether to stop. Training continues
in the same bits as without an evaluation.
"""

import random
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from virtex.build.images import image_limits
from virtex.checkpoints.file import checkpoint_path
from virtex.data.images import ImageLimits
from virtex.data.pixel_sample import pixel_lines
from virtex.distributed.failures import is_connection_error
from virtex.errors import UserError, first_few
from virtex.evaluation.backbones import EvaluatedBackbone, weights_hash
from virtex.evaluation.evaluate import ProtocolName, preprocessing
from virtex.evaluation.features import Features, FeatureSettings, pooled_features
from virtex.evaluation.heads import EvaluatedModel, HeadEvaluation, HeadSettings
from virtex.evaluation.results import RESULTS, Result, add_results, to_results
from virtex.inference.pretrained import Pretrained
from virtex.training.best_checkpoint import (
    BEST_CHECKPOINT,
    Best,
    best_value,
    evaluated_metric,
    logged_values,
)
from virtex.training.evaluation_plan import CAPTIONING, EvaluationPlan
from virtex.training.precision import named_precision
from virtex.training.scalars import SCALARS
from virtex.training.setup import Run

_SEED = 0  # as by default for `virtex evaluate`


class _StopRequested(Exception):
    """A process was asked to stop during the evaluation."""


def evaluate_and_log(run: Run, iteration: int) -> bool:
    """Evaluate the weights after `iteration` if that is due; False if a request to stop came first.

    An evaluation that fails is logged as a warning. Afterwards no evaluation of this iteration is
    due, unless it was stopped.
    """
    if not run.evaluation.is_due(iteration):
        return True
    phase = f"evaluation after iteration {iteration}"
    together = _Together(run, phase)
    if run.evaluation.plan is None:
        finished = together.wait()
    else:
        with _same_random_numbers(run.world.device):
            finished = _evaluate_on_main(run, run.evaluation.plan, iteration, together)
    if finished:
        run.evaluation.last = iteration
    return finished


def restore_evaluations(run: Run) -> None:
    """Find the last and the best evaluation of a run that resumes, in its scalars."""
    caution = None
    if run.evaluation.best is not None:
        caution = run.evaluation.best.restore()
    run.evaluation.last = run.world.from_main(lambda: _last_evaluated(run))
    if caution is not None:
        run.logger.warning(caution)


def _last_evaluated(run: Run) -> int:
    plan = run.evaluation.plan
    if plan is None:
        return 0
    path = run.options.directory / SCALARS
    return max(max(logged_values(path, evaluated_metric(n)), default=0) for n in plan.metrics)


class _Together:
    """Keeps all processes in step while rank 0 evaluates."""

    def __init__(self, run: Run, phase: str) -> None:
        self._run, self.phase = run, phase

    def advance(self, _: int = 0) -> None:
        """Called by rank 0 whenever it has made progress; raises `_StopRequested`."""
        stopped, _finished = self._exchange(finished=False)
        if stopped:
            raise _StopRequested

    def finish(self) -> None:
        """Called by rank 0 at the end: the other processes stop waiting."""
        self._exchange(finished=True)

    def wait(self) -> bool:
        """Called by the other processes; False if the evaluation was stopped."""
        while True:
            stopped, finished = self._exchange(finished=False)
            if finished or stopped:
                return finished

    def _exchange(self, *, finished: bool) -> tuple[bool, bool]:
        self._run.watchdog.report(self.phase)
        flags = torch.tensor([int(bool(self._run.request)), int(finished)])
        stopped, ended = self._run.world.sum(flags).tolist()
        return bool(stopped), bool(ended)


def _evaluate_on_main(run: Run, plan: EvaluationPlan, iteration: int, together: _Together) -> bool:
    """Evaluate on rank 0; False if a request to stop came first."""
    start = time.monotonic()
    try:
        results = _Evaluation(run, plan, iteration, together).results()
        add_results(run.options.directory / RESULTS, results)
        _log(run, plan, iteration, results, time.monotonic() - start)
    except _StopRequested:
        return False
    except Exception as error:  # whatever it is, it must not end the run
        if is_connection_error(error):
            raise
        text = str(error) if isinstance(error, UserError) else traceback.format_exc()
        run.logger.warning(f"{together.phase} failed, and training continues without it: {text}")
    together.finish()
    return True


def _log(
    run: Run, plan: EvaluationPlan, iteration: int, results: list[Result], seconds: float
) -> None:
    values = {f"{result.protocol}/{result.metric}": result.value for result in results}
    scalars = {evaluated_metric(name): value for name, value in values.items()}
    run.logger.log_scalars(iteration, scalars)
    best = run.evaluation.best
    if best is None:
        return
    best.offer(iteration, values[plan.best])
    figures = ", ".join(f"{name} {values[name]:.2f}" for name in plan.headlines)
    line = f"evaluation after iteration {iteration}: {figures} ({seconds:.1f} s)"
    if best.best is not None:
        line += f"; best {plan.best}: {best.best.value:.2f} at iteration {best.best.iteration}"
    run.logger.info(line)


@dataclass(frozen=True)
class _Evaluation:
    """The evaluation of the weights after `iteration`, on rank 0."""

    run: Run
    plan: EvaluationPlan
    iteration: int
    together: _Together

    def results(self) -> list[Result]:
        """The results of all protocols; raises `_StopRequested` if a process was asked to stop."""
        found: dict[str, list[Result]] = {}
        backbone = self._backbone()
        computed: dict[tuple[Path, ...], Features] = {}
        for protocol in self.plan.backbones:
            found[protocol] = self._of_backbone(protocol, backbone, computed)
        if self.plan.captioning is not None:
            found[CAPTIONING] = self._of_head(self.plan.captioning)
        ordered = self.run.options.config.evaluate.protocols
        return [result for protocol in ordered for result in found[protocol]]

    def _of_backbone(
        self,
        protocol: ProtocolName,
        backbone: EvaluatedBackbone,
        computed: dict[tuple[Path, ...], Features],
    ) -> list[Result]:
        """The results of a protocol; features in `computed` are used, and others added to it."""
        data = self.plan.backbones[protocol]
        steps = preprocessing(protocol, backbone)
        for line in pixel_lines(data.train, steps.pixels, self._limits):
            self.run.logger.warning_once(f"evaluation: {line}")
        device = self.run.world.device
        settings = FeatureSettings(
            precision=named_precision("auto", device),
            device=device,
            workers=self.run.options.workers,
            limits=self._limits,
        )
        parts = []
        for paths in (data.train, data.test):
            if paths not in computed:
                computed[paths] = pooled_features(
                    backbone.module, paths, steps, settings, self.together.advance
                )
                self._warn_of(computed[paths].bad, len(paths))
            parts.append(computed[paths])
        return to_results(
            data.figures(parts[0], parts[1], self.together.advance),
            protocol,
            backbone,
            data=data.sha256,
            root=data.root,
            seed=_SEED,
            settings={
                "image_size": backbone.image_size,
                "transforms": list(map(str, steps.steps)),
                "precision": settings.precision.name,
                **steps.pixels.record,
            },
        )

    def _warn_of(self, bad: tuple[str, ...], images: int) -> None:
        if bad:
            self.run.logger.warning_once(
                f"evaluation: {len(bad)} of {images} images cannot be read and are left out: "
                f"{first_few(bad)}"
            )

    def _of_head(self, evaluation: HeadEvaluation) -> list[Result]:
        config, device = self.run.options.config, self.run.world.device
        objective = self.run.state.objective
        model = EvaluatedModel(
            self._name,
            Pretrained(
                config, self.run.data.vocabulary, objective, self._limits, iteration=self.iteration
            ),
            weights_hash(objective.state_dict()),
        )
        settings = HeadSettings(
            precision=named_precision("float32", device),
            device=device,
            workers=self.run.options.workers,
            on_bad_image="skip",
            say=self._say,
            advance=self.together.advance,
        )
        return to_results(
            evaluation.figures(model, settings),
            CAPTIONING,
            model,
            data=evaluation.sha256,
            root=evaluation.root,
            seed=_SEED,
            settings={"image_size": config.data.image_crop_size, "precision": "float32"},
        )

    def _say(self, line: str) -> None:
        warning = "warning: "
        logger = self.run.logger
        log = logger.warning if line.startswith(warning) else logger.info
        log(f"evaluation: {line.removeprefix(warning)}")

    def _backbone(self) -> EvaluatedBackbone:
        config, module = self.run.options.config, self.run.state.objective.visual
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return EvaluatedBackbone(
            name=self._name,
            network=config.model.visual.network,
            module=module,
            image_size=config.data.image_crop_size,
            sha256=weights_hash(state),
            config=config,
            iteration=self.iteration,
        )

    @property
    def _name(self) -> str:
        return str(checkpoint_path(self.run.options.directory, self.iteration))

    @property
    def _limits(self) -> ImageLimits:
        return image_limits(self.run.options.config.data)


@contextmanager
def _same_random_numbers(device: torch.device) -> Iterator[None]:
    """Restore the global random states of torch, NumPy and Python at the end of the context."""
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002, of libraries
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def log_best(run: Run) -> None:
    """Log which checkpoint is the best, and whether the validation loss selects the same."""
    kept = run.evaluation.best
    if kept is None or kept.best is None:
        return
    best = kept.best
    line = f"best {kept.metric}: {best.value:.2f} at iteration {best.iteration}, {BEST_CHECKPOINT}"
    lowest = best_value(run.options.directory / SCALARS, "val/loss", lower_is_better=True)
    if lowest is not None:
        line += f"; {_comparison(best, lowest)}"
    run.logger.info(line)


def _comparison(best: Best, lowest: Best) -> str:
    if best.iteration == lowest.iteration:
        return f"the validation loss is lowest there too ({lowest.value:.4f})"
    return (
        f"the validation loss selects another checkpoint: it is lowest at iteration "
        f"{lowest.iteration} ({lowest.value:.4f})"
    )

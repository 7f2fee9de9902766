"""Reference curves: the scalars of a run that went well, to compare another run with at any time.

A file holds JSON objects, one a line: first `reference`, what the run was, with its `settings`;
then the scalars of an iteration, as in `scalars.jsonl`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtex.checkpoints.run_directory import CONFIG
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.errors import UserError, first_few
from virtex.files import reading
from virtex.training.scalars import SCALARS, Curve, curves_of

_LAG = 0.2
_CLOSE = 0.03
# They name places, or change what is reported instead of what is learnt.
_INCOMPARABLE = (
    *("RANDOM_SEED", "LOG_SAMPLES", "DATA.ROOT", "DATA.TOKENIZER_MODEL", "DATA.CACHE_DIR"),
    "EVALUATE.",
)


@dataclass(frozen=True)
class Reference:
    """The curve of a run: where it is from, its settings, and its metrics by name."""

    path: Path
    description: str
    settings: dict[str, object]
    curves: dict[str, Curve]


@dataclass(frozen=True)
class Judgement:
    """A metric of a run at its latest iteration, beside the reference's there.

    `reached` is the first iteration at which the reference was as good; None if it never was.
    """

    metric: str
    iteration: int
    value: float
    expected: float
    reached: float | None

    @property
    def on_track(self) -> bool:
        """Whether the reference was no better a fifth of the iterations ago, or is within 3 %."""
        if not math.isfinite(self.value):
            return False
        close = abs(self.value - self.expected) <= _CLOSE * abs(self.expected)
        return close or self.reached is None or self.reached >= (1 - _LAG) * self.iteration

    def __str__(self) -> str:
        text = (
            f"{'on track' if self.on_track else 'behind'}: {self.metric} {self.value:.4g} at "
            f"iteration {self.iteration}; the reference had {self.expected:.4g}"
        )
        if self.on_track or self.reached is None:
            return text
        return f"{text} and passed this value at iteration {self.reached:.0f}"


def read_references(path: Path) -> list[Reference]:
    """The curves of a file, or of all files in a directory; raises `UserError` if there is none."""
    if path.is_file():
        return [_read_reference(path)]
    found = sorted(path.glob("*.jsonl"))
    if not found:
        raise UserError(
            f"--reference: no curve at {path}; give the file of a curve, such as one that "
            "`python -m tools.reference_curve` of the repository has written"
        )
    return [_read_reference(one) for one in found]


def _read_reference(path: Path) -> Reference:
    """Read a reference curve; raises `UserError` for any other file."""
    with reading(path):
        first, *lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1] or [""]
    try:
        head = json.loads(first)
        return Reference(path, str(head["reference"]), dict(head["settings"]), curves_of(lines))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is not a reference curve: its first line must be a JSON object with "
            "'reference' and 'settings'"
        ) from error


def find_reference(run: Path, references: Sequence[Reference]) -> Reference:
    """The reference whose settings differ least from those of a run; raises `UserError`."""
    own = run_settings(run)
    task = _task(own)
    same_task = [one for one in references if _task(one.settings) == task]
    if not same_task:
        tasks = sorted({_task(one.settings) for one in references})
        raise UserError(
            f"--reference: no curve is of a run of MODEL.NAME {own['MODEL.NAME']}, only of "
            f"{', '.join(tasks)}; give the file of another curve"
        )
    return min(same_task, key=lambda one: len(different_settings(own, one)))


def _task(flat: dict[str, object]) -> str:
    name = str(flat.get("MODEL.NAME"))
    return "bicaptioning" if name == "virtex" else name


def run_settings(run: Path) -> dict[str, object]:
    """The settings of a run by their keys; raises `UserError` for a directory without a run."""
    if not (run / CONFIG).is_file() or not (run / SCALARS).is_file():
        raise UserError(
            f"{run} is not a run of `virtex pretrain` that has logged scalars: it lacks {CONFIG} "
            f"or {SCALARS}"
        )
    return settings.flat(settings.load(Config, run / CONFIG))


def different_settings(own: dict[str, object], reference: Reference) -> list[str]:
    """A text for each setting that a run does not share with the reference."""
    return [
        f"{key} {json.dumps(own[key])} (reference {json.dumps(reference.settings[key])})"
        for key in own
        if not key.startswith(_INCOMPARABLE)
        and key in reference.settings
        and not (key == "MODEL.NAME" and _task(own) == _task(reference.settings))
        and json.dumps(own[key]) != json.dumps(reference.settings[key])
    ]


def judge(curves: dict[str, Curve], reference: Reference) -> list[Judgement]:
    """Every metric of validation and evaluation that both have, at the run's latest iteration.

    Raises `UserError` if there is none yet.
    """
    judgements = []
    for metric, expected in reference.curves.items():
        own = {i: v for i, v in curves.get(metric, {}).items() if min(expected) <= i}
        if metric.startswith("train/") or not own:
            continue
        iteration = max(own)
        # Of the metrics of validation, training computes the losses, and no accuracy.
        falls = metric == "val/loss" or f"train/{metric.removeprefix('val/')}" in curves
        sign = 1.0 if falls else -1.0
        reached = _first_below(
            {i: sign * value for i, value in expected.items()}, sign * own[iteration]
        )
        judgements.append(
            Judgement(metric, iteration, own[iteration], interpolate(expected, iteration), reached)
        )
    if not judgements:
        raise UserError(
            "the run has no metric yet at which the reference can be read: it has "
            f"{first_few([name for name in curves if not name.startswith('train/')] or ['none'])}"
            f"; the reference has {first_few(list(reference.curves))}"
        )
    return judgements


def comparison_table(curves: dict[str, Curve], reference: Reference) -> str:
    """The validation losses of the run and the reference, a line for each of the run's."""
    rows = [("iteration", "val/loss", "reference")]
    expected = reference.curves.get("val/loss", {})
    for iteration, value in curves.get("val/loss", {}).items():
        if expected and iteration >= min(expected):
            rows.append((str(iteration), f"{value:.4f}", f"{interpolate(expected, iteration):.4f}"))
    return "\n".join("  ".join(cell.rjust(10) for cell in row) for row in rows)


def interpolate(curve: Curve, iteration: float) -> float:
    """The value at an iteration, linear between its neighbours; after the last one, the last."""
    before = max(i for i in curve if i <= iteration)
    after = min((i for i in curve if i >= iteration), default=before)
    share = (iteration - before) / (after - before) if after > before else 0.0
    return curve[before] + share * (curve[after] - curve[before])


def _first_below(curve: Curve, value: float) -> float | None:
    """The first iteration, between those of the curve too, at which it is at most `value`."""
    previous: int | None = None
    for iteration, here in curve.items():
        if here <= value:
            if previous is None or math.isclose(curve[previous], here):
                return iteration
            share = (curve[previous] - value) / (curve[previous] - here)
            return previous + share * (iteration - previous)
        previous = iteration
    return None

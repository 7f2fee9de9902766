"""Comparison of runs: mean and deviation of the metrics over runs that differ only in the seed.

A metric is a scalar in `scalars.jsonl`, of which the last value counts, or a number in a
`results.json`, such as `true` in the run's directory or `report/true` in its subdirectory `report`.
"""

import difflib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtex.checkpoints.run_directory import CONFIG
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.data import subset
from virtex.errors import UserError
from virtex.training.scalars import SCALARS, is_number, last_scalars

SEED = "RANDOM_SEED"
_MANIFEST = "DATA.SUBSET_MANIFEST"
_RESULTS = "results.json"
_MAX_COMPONENTS = 4  # of a loss that are shown by default


@dataclass(frozen=True)
class RunSummary:
    """The settings of a run, its progress and its metrics; `notes` are messages for the user."""

    directory: Path
    settings: dict[str, object]
    iteration: int
    scalars: dict[str, float]
    results: dict[str, float]
    notes: tuple[str, ...]

    @property
    def numbers(self) -> dict[str, float]:
        """The run's metrics by name."""
        return self.scalars | self.results

    @property
    def iterations(self) -> int:
        """The number of iterations configured."""
        iterations = self.settings["OPTIM.NUM_ITERATIONS"]
        assert isinstance(iterations, int)
        return iterations

    @property
    def group_key(self) -> dict[str, object]:
        """The settings except the seed."""
        return {key: value for key, value in self.settings.items() if key != SEED}


@dataclass(frozen=True)
class Statistic:
    """A metric of a group: the runs' values, their mean, and the sample standard deviation.

    `deviation` is None for one value. Both are NaN if a value is not finite.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed; `settings` are those in which groups differ."""

    settings: dict[str, object]
    runs: tuple[RunSummary, ...]

    def statistic(self, metric: str) -> Statistic | None:
        """The statistic over the runs that have the metric; None if none has."""
        values = tuple(run.numbers[metric] for run in self.runs if metric in run.numbers)
        if not values:
            return None
        several = len(values) > 1
        if not all(map(math.isfinite, values)):
            return Statistic(values, math.nan, math.nan if several else None)
        deviation = statistics.stdev(values) if several else None
        return Statistic(values, statistics.mean(values), deviation)


def read_run(directory: Path) -> RunSummary:
    """Read a run's directory; raises UserError for any other directory."""
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} is not a run of `virtex pretrain`: {_why_not(directory)}")
    flat = settings.flat(settings.load(Config, directory / CONFIG))
    if flat[_MANIFEST] is not None:
        # Each seed may have its own file; only the size is the same.
        path = directory / subset.SUBSET
        if path.exists():
            flat[_MANIFEST] = f"{len(subset.read(path).ids)} images"
    last = last_scalars(directory / SCALARS)
    notes = []
    if last.unreadable is not None:
        notes.append(
            f"{directory / SCALARS}: line {last.unreadable} cannot be read; it and later "
            "lines are ignored"
        )
    results = _results(directory / _RESULTS, "")
    for path in sorted(directory.glob(f"*/{_RESULTS}")):
        results |= _results(path, f"{path.parent.name}/")
    return RunSummary(directory, flat, last.iteration, last.values, results, tuple(notes))


def group(runs: Sequence[RunSummary]) -> list[Group]:
    """Group the runs; groups are sorted by the settings in which they differ.

    Raises UserError for a directory that is given more than once.
    """
    for directory, times in Counter(run.directory.resolve() for run in runs).items():
        if times > 1:
            raise UserError(f"{directory} is given more than once; name every run once")
    members: dict[str, list[RunSummary]] = {}
    for run in runs:
        members.setdefault(json.dumps(run.group_key), []).append(run)
    keys = [
        key for key in runs[0].group_key if len({json.dumps(r.settings[key]) for r in runs}) > 1
    ]
    groups = [
        Group({key: same[0].settings[key] for key in keys}, tuple(same))
        for same in members.values()
    ]
    return sorted(groups, key=lambda each: [_order(value) for value in each.settings.values()])


def distinguishing_settings(groups: Sequence[Group]) -> list[str]:
    """A minimal set of settings that distinguishes all groups, with the shortest values.

    Among these groups, the other settings follow from them.
    """

    def width(key: str) -> int:
        return max(len(json.dumps(each.settings[key])) for each in groups)

    keys = list(groups[0].settings)
    for key in sorted(keys, key=width, reverse=True):
        others = [other for other in keys if other != key]
        distinct = {json.dumps([each.settings[other] for other in others]) for each in groups}
        if len(distinct) == len(groups):
            keys = others
    return keys


def choose_metrics(runs: Sequence[RunSummary], requested: Sequence[str]) -> list[str]:
    """The requested metrics, or by default the validation losses and results of any run.

    By default, components of the loss are omitted if there is only one or there are many.
    Raises UserError for a name that no run has.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.numbers))
    for name in requested:
        if name not in known:
            near = difflib.get_close_matches(name, known, cutoff=0.4)
            hint = (
                f"did you mean {' or '.join(map(repr, near))}?"
                if near
                else f"their metrics: {', '.join(known) or 'none yet'}"
            )
            raise UserError(f"--metric {name}: no run has this metric; {hint}")
    if requested:
        return list(dict.fromkeys(requested))
    scalars = dict.fromkeys(name for run in runs for name in run.scalars)
    total = [name for name in scalars if name == "val/loss"]
    parts = [name for name in scalars if name.startswith("val/") and name not in total]
    results = dict.fromkeys(name for run in runs for name in run.results)
    return [*total, *(parts if 1 < len(parts) <= _MAX_COMPONENTS else []), *results]


def notes(groups: Sequence[Group]) -> list[str]:
    """Warnings about the runs, one line each: unreadable lines, unfinished runs, repeated seeds."""
    lines = [note for each in groups for run in each.runs for note in run.notes]
    lines += [
        f"{run.directory} is unfinished: its metrics are those of iteration {run.iteration} of "
        f"{run.iterations}"
        for each in groups
        for run in each.runs
        if run.iteration < run.iterations
    ]
    for each in groups:
        for seed, times in Counter(run.settings[SEED] for run in each.runs).items():
            if times > 1:
                names = ", ".join(str(r.directory) for r in each.runs if r.settings[SEED] == seed)
                lines.append(f"{names} have the same settings and the same seed, {seed}")
    return lines


def short_names(keys: Sequence[str], among: Iterable[str]) -> dict[str, str]:
    """The shortest suffix of each key that no other key among the settings has."""
    ends = Counter(end for key in among for end in _ends(key))
    return {key: next(end for end in _ends(key) if ends[end] == 1) for key in keys}


def _ends(key: str) -> list[str]:
    """`C`, `B.C` and `A.B.C` of `A.B.C`."""
    parts = key.split(".")
    return [".".join(parts[first:]) for first in reversed(range(len(parts)))]


def _why_not(directory: Path) -> str:
    if not directory.exists():
        return "it does not exist"
    if not directory.is_dir():
        return "it is a file"
    if any(directory.glob(f"*/{CONFIG}")):
        return f"it holds no {CONFIG}, but its subdirectories do; give {directory}/*/ instead"
    return f"it holds no {CONFIG}"


def _results(path: Path, prefix: str) -> dict[str, float]:
    """The numbers of a file by name; other values are ignored."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove it") from error
    if isinstance(content, list) and all(isinstance(item, dict) for item in content):
        content = _latest(content)
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; remove it")
    return {prefix + name: value for name, value in content.items() if is_number(value)}


def _latest(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Values of `virtex evaluate` by `PROTOCOL/METRIC`: the last of the latest checkpoint."""
    return {
        f"{record.get('protocol')}/{record.get('metric')}": record.get("value")
        for record in sorted(records, key=lambda record: record.get("iteration") or 0)
    }


def _order(value: object) -> tuple[bool, float, str]:
    """Numbers by size, then other values by their text."""
    if isinstance(value, int | float):
        return (False, value, "")
    return (True, 0, str(value))

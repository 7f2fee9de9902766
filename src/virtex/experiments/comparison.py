"""Comparison of runs: mean and deviation of the metrics over runs that differ only in the seed.

A metric is a scalar in `scalars.jsonl`, of which the last value counts, or a number in a
`results.json`, such as `true` in the run's directory or `report/true` in its subdirectory `report`.
A record of `virtex evaluate` is PROTOCOL/METRIC, and PROTOCOL/METRIC@DATA where the records have
several data sets for it.
"""

import difflib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from virtex.checkpoints.run_directory import CONFIG
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.data import subset
from virtex.errors import UserError
from virtex.experiments.published import (
    IMAGENET_CAVEAT,
    SOURCE,
    is_of_imagenet,
    published_figure,
)
from virtex.training.scalars import SCALARS, is_number, last_scalars

SEED = "RANDOM_SEED"
_MANIFEST = "DATA.SUBSET_MANIFEST"
_RESULTS = "results.json"
_MAX_COMPONENTS = 4  # of a loss that are shown by default


@dataclass(frozen=True)
class Figure:
    """A number in a `results.json`, with the hash of its data and their path where it has them."""

    name: str
    value: float
    data: str = ""
    root: str = ""


@dataclass(frozen=True)
class RunSummary:
    """The settings of a run, its progress and its metrics; `notes` are messages for the user.

    `figures` are by their names among the metrics.
    """

    directory: Path
    settings: dict[str, object]
    iteration: int
    scalars: dict[str, float]
    figures: dict[str, Figure]
    notes: tuple[str, ...]

    @property
    def results(self) -> dict[str, float]:
        """The numbers of results.json by name."""
        return {name: figure.value for name, figure in self.figures.items()}

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

    def published(self, metric: str) -> float | None:
        """The figure that the paper reports for these settings; None if there is none."""
        figures = [run.figures[metric] for run in self.runs if metric in run.figures]
        found = {
            published_figure(self.runs[0].settings, figure.name, figure.root) for figure in figures
        }
        return found.pop() if len(found) == 1 else None


def read_run(directory: Path) -> RunSummary:
    """Read a run's directory; raises UserError for any other directory.

    Its figures get their names by `name_data_apart`, which needs all runs that are compared.
    """
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
    figures = _figures(directory / _RESULTS, "")
    for path in sorted(directory.glob(f"*/{_RESULTS}")):
        figures += _figures(path, f"{path.parent.name}/")
    named = {f"{number}": figure for number, figure in enumerate(figures)}
    return RunSummary(directory, flat, last.iteration, last.values, named, tuple(notes))


def name_data_apart(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs with their figures by name; `@` and a name of the data where there are several."""
    roots: dict[str, dict[str, str]] = {}
    for run in runs:
        for figure in run.figures.values():
            roots.setdefault(figure.name, {}).setdefault(figure.data, figure.root)
    names = {
        (name, data): name if label is None else f"{name}@{label}"
        for name, of_data in roots.items()
        for data, label in _labels(of_data).items()
    }
    return [
        replace(run, figures={names[one.name, one.data]: one for one in run.figures.values()})
        for run in runs
    ]


def _labels(roots: Mapping[str, str]) -> dict[str, str | None]:
    """A name for each of several data sets, by their hashes; None for a single one.

    It is the end of the path that no other has; if two have the same path, their hashes follow.
    """
    if len(roots) == 1:
        return dict.fromkeys(roots)
    paths = {data: Path(root).parts for data, root in roots.items()}
    for count in range(1, max(map(len, paths.values())) + 1):
        ends = {data: "/".join(parts[-count:]) for data, parts in paths.items()}
        if len(set(ends.values())) == len(ends):
            return dict(ends)
    return {data: f"{Path(root).name}-{data[:6]}" for data, root in roots.items()}


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


def explanations(groups: Sequence[Group], metrics: Sequence[str]) -> list[str]:
    """What the reader of a table with published figures must know; none without such figures."""
    shown = [name for name in metrics if any(each.published(name) is not None for each in groups)]
    if not shown:
        return []
    return [SOURCE, *([IMAGENET_CAVEAT] if any(map(is_of_imagenet, shown)) else [])]


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


def _figures(path: Path, prefix: str) -> list[Figure]:
    """The numbers of a file; other values are ignored."""
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); remove it") from error
    if isinstance(content, list) and all(isinstance(item, dict) for item in content):
        return _latest(content, prefix)
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a JSON object; remove it")
    return [Figure(prefix + name, value) for name, value in content.items() if is_number(value)]


def _latest(records: Sequence[dict[str, Any]], prefix: str) -> list[Figure]:
    """The numbers of `virtex evaluate`: for each data set the last of the latest checkpoint."""
    found: dict[tuple[str, str], Figure] = {}
    for record in sorted(records, key=lambda record: record.get("iteration") or 0):
        name = f"{prefix}{record.get('protocol')}/{record.get('metric')}"
        data, root = str(record.get("data", "")), str(record.get("root", ""))
        value = record.get("value")
        if isinstance(value, int | float) and is_number(value):
            found[name, data] = Figure(name, value, data, root)
    return list(found.values())


def _order(value: object) -> tuple[bool, float, str]:
    """Numbers by size, then other values by their text."""
    if isinstance(value, int | float):
        return (False, value, "")
    return (True, 0, str(value))

"""Comparing runs: what is equal but for the seed is one group, with mean and deviation.

A metric is a name of `scalars.jsonl`, whose last value counts, or of a `results.json`: `true` in
the run's directory, `report/true` in its folder `report`.
"""

import difflib
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from virtex.checkpoints.run_directory import CONFIG
from virtex.config import loading as settings
from virtex.config.schema import EARLIER_RUN, Config
from virtex.data import subset
from virtex.errors import UserError
from virtex.training.scalars import SCALARS, is_number, last_scalars

SEED = "RANDOM_SEED"
_MANIFEST = "DATA.SUBSET_MANIFEST"
_RESULTS = "results.json"
_FEW = 4  # components of a loss that are shown unasked


@dataclass(frozen=True)
class RunSummary:
    """What a run was to do, how far it is, and its numbers; `notes` are for a person."""

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
        """How many it was to do."""
        iterations = self.settings["OPTIM.NUM_ITERATIONS"]
        assert isinstance(iterations, int)
        return iterations

    @property
    def group_key(self) -> dict[str, object]:
        """The settings but for the seed."""
        return {key: value for key, value in self.settings.items() if key != SEED}


@dataclass(frozen=True)
class Statistic:
    """A metric of a group: the runs' values, their mean, and the sample standard deviation.

    `deviation` is None for one value. Both are NaN where a value is not finite.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Group:
    """Runs of equal settings but for the seed; `settings` are those in which groups differ."""

    settings: dict[str, object]
    runs: tuple[RunSummary, ...]

    def statistic(self, metric: str) -> Statistic | None:
        """Over those runs that have the metric; None if none has."""
        values = tuple(run.numbers[metric] for run in self.runs if metric in run.numbers)
        if not values:
            return None
        several = len(values) > 1
        if not all(map(math.isfinite, values)):
            return Statistic(values, math.nan, math.nan if several else None)
        deviation = statistics.stdev(values) if several else None
        return Statistic(values, statistics.mean(values), deviation)


def read_run(directory: Path) -> RunSummary:
    """What the files of a run's directory say; raises UserError if it is none."""
    if not (directory / CONFIG).is_file():
        raise UserError(f"{directory} is no run of virtex pretrain: {_why_not(directory)}")
    flat = settings.flat(settings.load(Config, directory / CONFIG, context=EARLIER_RUN))
    if flat[_MANIFEST] is not None:
        # Runs of several seeds may be given a file each; what they share is the size.
        flat[_MANIFEST] = _manifest_size(directory, flat[_MANIFEST])
    last = last_scalars(directory / SCALARS)
    notes = []
    if last.unreadable is not None:
        notes.append(
            f"{directory / SCALARS}: line {last.unreadable} cannot be read; it and what follows "
            "are left out"
        )
    results = _results(directory / _RESULTS, "")
    for path in sorted(directory.glob(f"*/{_RESULTS}")):
        results |= _results(path, f"{path.parent.name}/")
    return RunSummary(directory, flat, last.iteration, last.values, results, tuple(notes))


def group(runs: Sequence[RunSummary]) -> list[Group]:
    """The groups in the order of the settings in which they differ.

    Raises UserError for a directory that is given twice.
    """
    times = Counter(run.directory.resolve() for run in runs)
    for run in runs:
        if times[run.directory.resolve()] > 1:
            raise UserError(f"{run.directory} is given twice; name every run once")
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


def telling_keys(groups: Sequence[Group]) -> list[str]:
    """As few settings as tell all groups apart, those with the shortest values.

    The others of a group's settings follow from these, as far as these groups go.
    """

    def width(key: str) -> int:
        return max(len(json.dumps(each.settings[key])) for each in groups)

    keys = list(groups[0].settings)
    for key in sorted(keys, key=width, reverse=True):
        others = [other for other in keys if other != key]
        told = {json.dumps([each.settings[other] for other in others]) for each in groups}
        if len(told) == len(groups):
            keys = others
    return keys


def choose_metrics(runs: Sequence[RunSummary], asked_for: Sequence[str]) -> list[str]:
    """The names asked for, or else validation losses and results, as far as any run has them.

    Components of the loss are left out where there is one, or where there are many.
    Raises UserError for a name that no run has.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.numbers))
    for name in asked_for:
        if name not in known:
            near = difflib.get_close_matches(name, known, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else _those(known)
            raise UserError(f"--metric {name}: none of the runs has it; {hint}")
    if asked_for:
        return list(dict.fromkeys(asked_for))
    scalars = dict.fromkeys(name for run in runs for name in run.scalars)
    total = [name for name in scalars if name == "val/loss"]
    parts = [name for name in scalars if name.startswith("val/") and name not in total]
    results = dict.fromkeys(name for run in runs for name in run.results)
    return [*total, *(parts if 1 < len(parts) <= _FEW else []), *results]


def notes(groups: Sequence[Group]) -> list[str]:
    """What a person should know of the runs, a line each: unfinished ones, repeated seeds."""
    lines = [note for each in groups for run in each.runs for note in run.notes]
    lines += [
        f"{run.directory} is at iteration {run.iteration} of {run.iterations}; its numbers are of "
        "an unfinished run"
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
    """The shortest end of each key that no other key among the settings ends with."""
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
        return f"it holds no {CONFIG}, but directories that do; name those, such as {directory}/*/"
    return f"it holds no {CONFIG}"


def _manifest_size(directory: Path, given: object) -> object:
    path = directory / subset.SUBSET
    if not path.exists():
        return given
    return f"{len(subset.read(path).ids)} images"


def _results(path: Path, prefix: str) -> dict[str, float]:
    """The numbers of a file by name; other values are passed over."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); write it again, or remove it") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object of names and numbers; remove it")
    return {prefix + name: value for name, value in content.items() if is_number(value)}


def _order(value: object) -> tuple[bool, float, str]:
    """Numbers by size, then other values by their text."""
    if isinstance(value, int | float):
        return (False, value, "")
    return (True, 0, str(value))


def _those(names: Sequence[str]) -> str:
    return f"they have {', '.join(names)}" if names else "they have no numbers yet"

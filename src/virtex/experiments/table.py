"""Groups of runs as a table for a terminal, or as plain values."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from virtex.experiments.comparison import (
    SEED,
    Group,
    Statistic,
    distinguishing_settings,
    short_names,
)

_DIGITS = 4
_GAP = "  "
_NONE = "—"


def table(groups: Sequence[Group], metrics: Sequence[str], width: int) -> str:
    """Aligned text: a line for each group, or a column, whichever is cut into fewer parts.

    A part is `width` characters wide, or has a single column of values. Settings that follow from
    the others are only named, below.
    """
    heads = _heads(groups)
    values = [_Column(name, [_cell(group, name) for group in groups]) for name in metrics]
    lines = _parts(heads, values, width)
    names = _Column("", [_Cell(column.name) for column in (*heads, *values)], left=True)
    columns = [
        _Column("", list(cells))
        for cells in zip(*(column.cells for column in (*heads, *values)), strict=True)
    ]
    turned = _parts([names], columns, width)
    parts = lines if len(lines) <= len(turned) else turned
    return "\n\n".join([*parts, *_also(groups)])


def as_plain_values(groups: Sequence[Group], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The groups as JSON has them; null where a number is not finite or there is no deviation."""
    return [
        {
            "settings": group.settings,
            "runs": [str(run.directory) for run in group.runs],
            "seeds": [run.settings[SEED] for run in group.runs],
            "iteration": [run.iteration for run in group.runs],
            "iterations": group.runs[0].iterations,
            "metrics": {name: _plain(group.statistic(name)) for name in metrics},
        }
        for group in groups
    ]


def statistic_texts(statistic: Statistic) -> tuple[str, str]:
    """Mean and deviation, rounded to the fourth digit of the mean; counts that agree in full."""
    mean, deviation = statistic.mean, statistic.deviation
    if all(isinstance(value, int) for value in statistic.values) and not deviation:
        return str(statistic.values[0]), _NONE if deviation is None else "0"
    exponent = math.floor(math.log10(abs(mean))) if mean and math.isfinite(mean) else 0
    if not -_DIGITS <= exponent <= _DIGITS + 1:
        return f"{mean:.{_DIGITS - 1}e}", _NONE if deviation is None else f"{deviation:.1e}"
    decimals = max(0, _DIGITS - 1 - exponent)
    return f"{mean:.{decimals}f}", _deviation_text(deviation, decimals)


def _deviation_text(deviation: float | None, decimals: int) -> str:
    if deviation is None:
        return _NONE
    text = f"{deviation:.{decimals}f}"
    # One that is too small for these decimals is not nothing.
    return f"{deviation:.1g}" if deviation and not float(text) else text


@dataclass(frozen=True)
class _Cell:
    text: str
    deviation: str = ""


@dataclass(frozen=True)
class _Column:
    """Cells below a name, which may be none; numbers stand on the right, with their ± in line."""

    name: str
    cells: Sequence[_Cell]
    left: bool = False

    def lines(self) -> list[str]:
        """All of equal width."""
        after = max((len(cell.deviation) for cell in self.cells), default=0)
        texts = [self.name] if self.name else []
        texts += [
            f"{cell.text} ± {cell.deviation:<{after}}" if cell.deviation else cell.text
            for cell in self.cells
        ]
        width = max(map(len, texts))
        return [text.ljust(width) if self.left else text.rjust(width) for text in texts]


def _parts(heads: Sequence[_Column], values: Sequence[_Column], width: int) -> list[str]:
    """The columns side by side, as many as fit beside the heads, which each part repeats."""
    beside = [column.lines() for column in heads]
    parts: list[list[list[str]]] = [list(beside)]
    for lines in (column.lines() for column in values):
        taken = sum(len(column[0]) + len(_GAP) for column in parts[-1])
        if taken + len(lines[0]) > width and len(parts[-1]) > len(beside):
            parts.append(list(beside))
        parts[-1].append(lines)
    return ["\n".join(_GAP.join(row).rstrip() for row in zip(*part, strict=True)) for part in parts]


def _heads(groups: Sequence[Group]) -> list[_Column]:
    """What is said of every group before its metrics."""
    keys = distinguishing_settings(groups)
    names = short_names(keys, groups[0].runs[0].settings)
    heads = [_setting_column(names[key], [group.settings[key] for group in groups]) for key in keys]
    heads.append(_Column("runs", [_Cell(str(len(group.runs))) for group in groups]))
    heads.append(_Column("iterations", [_Cell(_progress(group)) for group in groups]))
    return heads


def _also(groups: Sequence[Group]) -> list[str]:
    """A line that names the settings which differ but have no column."""
    told = distinguishing_settings(groups)
    untold = [key for key in groups[0].settings if key not in told]
    return [f"these runs differ in {', '.join(untold)} too"] if untold else []


def _setting_column(name: str, values: Sequence[object]) -> _Column:
    numbers = all(isinstance(value, int | float) for value in values)
    return _Column(name, [_Cell(_setting(value)) for value in values], left=not numbers)


def _progress(group: Group) -> str:
    done = sorted({run.iteration for run in group.runs})
    wanted = group.runs[0].iterations
    if done[0] >= wanted:
        return str(wanted)
    return f"{'–'.join(map(str, dict.fromkeys((done[0], done[-1]))))} of {wanted}"


def _setting(value: object) -> str:
    if value is None:
        return _NONE
    if isinstance(value, str):
        return value
    return json.dumps(value).removesuffix(".0")


def _cell(group: Group, metric: str) -> _Cell:
    statistic = group.statistic(metric)
    if statistic is None:
        return _Cell("")
    mean, deviation = statistic_texts(statistic)
    count = len(statistic.values)
    return _Cell(mean, deviation if count == len(group.runs) else f"{deviation} (of {count})")


def _plain(statistic: Statistic | None) -> dict[str, Any] | None:
    if statistic is None:
        return None
    return {
        "mean": _finite(statistic.mean),
        "deviation": _finite(statistic.deviation),
        "values": [_finite(value) for value in statistic.values],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

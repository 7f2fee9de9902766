"""Groups of runs as a table for a terminal, or as plain values."""

import json
import math
from collections.abc import Sequence
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
    """A text table with a line or a column for each group, whichever splits into fewer parts.

    A part is at most `width` characters wide, or has a single column of values. Settings that
    follow from the others are only named below the table.
    """
    keys = distinguishing_settings(groups)
    names = short_names(keys, groups[0].runs[0].settings)
    heads = [_setting_column(names[key], [group.settings[key] for group in groups]) for key in keys]
    heads.append(_padded(["runs", *(str(len(group.runs)) for group in groups)]))
    heads.append(_padded(["iterations", *map(_progress, groups)]))
    values = [column for metric in metrics for column in _value_columns(groups, metric)]
    in_lines = _parts(heads, values, width)
    titles, *turned = (
        [cell.strip() for cell in line] for line in zip(*heads, *values, strict=True)
    )
    in_columns = _parts([_padded(titles, left=True)], [_padded(cells) for cells in turned], width)
    parts = in_lines if len(in_lines) <= len(in_columns) else in_columns
    others = [key for key in groups[0].settings if key not in keys]
    if others:
        parts.append(f"these runs also differ in {', '.join(others)}")
    return "\n\n".join(parts)


def as_plain_values(groups: Sequence[Group], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The groups as values for JSON; None for a number that is not finite or does not exist."""
    return [
        {
            "settings": group.settings,
            "runs": [str(run.directory) for run in group.runs],
            "seeds": [run.settings[SEED] for run in group.runs],
            "iteration": [run.iteration for run in group.runs],
            "iterations": group.runs[0].iterations,
            "metrics": {name: _plain(group, name) for name in metrics},
        }
        for group in groups
    ]


def statistic_texts(statistic: Statistic) -> tuple[str, str]:
    """Mean and deviation, rounded to four digits of the mean; equal counts are not rounded."""
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
    # A small deviation must not be rounded to zero.
    return f"{deviation:.1g}" if deviation and not float(text) else text


def _padded(cells: Sequence[str], left: bool = False) -> list[str]:
    """The cells at equal width, with each ± in one place, aligned to the right unless `left`."""
    deviations = [cell.partition("±")[2] for cell in cells]
    longest = max(map(len, deviations))
    texts = [
        cell + " " * (longest - len(deviation)) if deviation else cell
        for cell, deviation in zip(cells, deviations, strict=True)
    ]
    width = max(map(len, texts))
    return [text.ljust(width) if left else text.rjust(width) for text in texts]


def _parts(heads: list[list[str]], values: list[list[str]], width: int) -> list[str]:
    """The columns side by side, as many as fit beside the heads, which each part repeats."""
    parts = [[*heads]]
    for column in values:
        taken = sum(len(other[0]) + len(_GAP) for other in parts[-1])
        if taken + len(column[0]) > width and len(parts[-1]) > len(heads):
            parts.append([*heads])
        parts[-1].append(column)
    return ["\n".join(_GAP.join(row).rstrip() for row in zip(*part, strict=True)) for part in parts]


def _progress(group: Group) -> str:
    done = sorted({run.iteration for run in group.runs})
    wanted = group.runs[0].iterations
    if done[0] >= wanted:
        return str(wanted)
    return f"{'–'.join(map(str, dict.fromkeys((done[0], done[-1]))))} of {wanted}"


def _setting_column(name: str, values: Sequence[object]) -> list[str]:
    are_numbers = all(isinstance(value, int | float) for value in values)
    return _padded([name, *map(_setting, values)], left=not are_numbers)


def _setting(value: object) -> str:
    if value is None:
        return _NONE
    return value if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def _value_columns(groups: Sequence[Group], metric: str) -> list[list[str]]:
    """The column of a metric, and one with published figures if a group has any."""
    columns = [_padded([metric, *(_cell(group, metric) for group in groups)])]
    published = [group.published(metric) for group in groups]
    if any(figure is not None for figure in published):
        cells = ["" if figure is None else f"{figure:.1f}" for figure in published]
        columns.append(_padded([f"{metric} (published)", *cells]))
    return columns


def _cell(group: Group, metric: str) -> str:
    statistic = group.statistic(metric)
    if statistic is None:
        return ""
    count = len(statistic.values)
    some = "" if count == len(group.runs) else f" (of {count})"
    return " ± ".join(statistic_texts(statistic)) + some


def _plain(group: Group, metric: str) -> dict[str, Any] | None:
    statistic, published = group.statistic(metric), group.published(metric)
    if statistic is None:
        return None
    plain = {
        "mean": _finite(statistic.mean),
        "deviation": _finite(statistic.deviation),
        "values": [_finite(value) for value in statistic.values],
    }
    return plain if published is None else plain | {"published": published}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

"""`scalars.jsonl`: the numbers of a run, a JSON object with `iteration` and numbers per line."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from virtex.files import reading

SCALARS = "scalars.jsonl"

Curve = dict[int, float]
"""The values of a metric by iteration, ascending."""


@dataclass
class LastScalars:
    """The last value of every name, and the last iteration (0 if there is none).

    `unreadable` is the number of the first line that cannot be read; later lines are ignored.
    """

    iteration: int = 0
    values: dict[str, float] = field(default_factory=dict)
    unreadable: int | None = None


def last_scalars(path: Path) -> LastScalars:
    """The last values in `path`, to which the run may still be writing."""
    last = LastScalars()
    if not path.exists():
        return last
    with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):  # still being written
                break
            scalars = parse_line(line)
            if scalars is None:
                last.unreadable = number
                break
            last.iteration = max(last.iteration, int(scalars.pop("iteration")))
            last.values |= scalars
    return last


def read_curves(path: Path) -> dict[str, Curve]:
    """The metrics of a `scalars.jsonl`, to which a run may still be writing."""
    with reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
    return curves_of(lines)


def curves_of(lines: Sequence[str]) -> dict[str, Curve]:
    """The metrics in lines of such a file, by name."""
    found: dict[str, Curve] = {}
    for line in lines:
        scalars = parse_line(line)
        if scalars is not None:
            iteration = int(scalars.pop("iteration"))
            for name, value in scalars.items():
                found.setdefault(name, {})[iteration] = float(value)
    return {name: dict(sorted(curve.items())) for name, curve in found.items()}


def parse_line(line: str) -> dict[str, float] | None:
    """The numbers of a line with its `iteration`; None if it cannot be read."""
    try:
        scalars = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(scalars, dict) or type(scalars.get("iteration")) is not int:
        return None
    return scalars if all(map(is_number, scalars.values())) else None


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number that fits a float."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)

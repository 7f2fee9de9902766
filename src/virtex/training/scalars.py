"""`scalars.jsonl`: the numbers of a run, a JSON object with `iteration` and numbers per line."""

import json
from dataclasses import dataclass, field
from pathlib import Path

SCALARS = "scalars.jsonl"


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

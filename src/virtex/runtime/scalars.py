"""`scalars.jsonl`: the numbers of a run, a JSON object a line, `iteration` and named numbers."""

import json
from dataclasses import dataclass, field
from pathlib import Path

SCALARS = "scalars.jsonl"


@dataclass
class LastScalars:
    """The last value of every name, and the last iteration; 0 where there is none.

    `unreadable` is the number of the first line that cannot be read, after which nothing counts.
    """

    iteration: int = 0
    values: dict[str, float] = field(default_factory=dict)
    unreadable: int | None = None


def last_scalars(path: Path) -> LastScalars:
    """What `path` says of the latest state of its run; the run may be writing to it."""
    last = LastScalars()
    if not path.exists():
        return last
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines[:-1], start=1):  # after the last newline: still written
        scalars = _parsed(line)
        if scalars is None:
            last.unreadable = number
            break
        last.iteration = max(last.iteration, int(scalars.pop("iteration")))
        last.values |= scalars
    return last


def _parsed(line: str) -> dict[str, float] | None:
    try:
        scalars = json.loads(line)
    except ValueError:
        return None
    if not isinstance(scalars, dict) or type(scalars.get("iteration")) is not int:
        return None
    if not all(type(value) in (int, float) for value in scalars.values()):
        return None
    return scalars

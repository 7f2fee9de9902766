"""The results of evaluations: one form for every protocol, kept in a file and shown as a table."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from virtex.errors import UserError, printable
from virtex.files import check_writable, reading, write_whole

if TYPE_CHECKING:  # as it imports torch
    from virtex.evaluation.figures import Figure

RESULTS = "results.json"


class Result(BaseModel):
    """A figure of a protocol for a checkpoint and data.

    `checkpoint` and `data` are hashes, `name` and `root` the paths that they had. `value` is in the
    metric's unit, mostly percent; `interval` is its 95 % bootstrap interval over the test images,
    `deviation` the standard deviation over draws.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str
    data: str
    protocol: str
    settings: dict[str, object]
    metric: str
    value: float
    seed: int
    name: str
    root: str
    iteration: int | None = None
    interval: tuple[float, float] | None = None
    deviation: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """What identifies the figure: a later result with the same key replaces it."""
        settings = json.dumps(self.settings, sort_keys=True)
        return (self.checkpoint, self.data, self.protocol, settings, self.metric, self.seed)


class Evaluated(Protocol):
    """What figures are of, such as an `EvaluatedBackbone`."""

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def iteration(self) -> int | None: ...


def to_results(
    figures: "Iterable[Figure]",
    protocol: str,
    evaluated: Evaluated,
    *,
    data: str,
    root: Path,
    seed: int,
    settings: Mapping[str, object],
) -> list[Result]:
    """The figures of a protocol as results; `settings` are common to all of them."""
    return [
        Result(
            checkpoint=evaluated.sha256,
            data=data,
            protocol=protocol,
            settings={name: _plain(value) for name, value in both.items()},
            metric=figure.metric,
            value=figure.value,
            seed=seed,
            name=printable(evaluated.name),
            root=printable(root),
            iteration=evaluated.iteration,
            interval=figure.interval,
            deviation=figure.deviation,
        )
        for figure in figures
        for both in [{**settings, **figure.settings}]
    ]


def _plain(value: object) -> object:
    """A value with `printable` text, as a result is JSON."""
    match value:
        case str():
            return printable(value)
        case tuple():
            return tuple(map(_plain, value))
        case _:
            return value


_RESULTS = TypeAdapter(list[Result])


def read_results(path: Path) -> list[Result]:
    """The results in a file, none if it does not exist; raises `UserError` if it holds others."""
    with reading(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
    try:
        return _RESULTS.validate_json(content)
    except ValidationError as error:
        raise UserError(
            f"{path} does not hold the results of `virtex evaluate`: {error.errors()[0]['msg']}; "
            "name another file with --output"
        ) from error


def check_results(path: Path) -> None:
    """Raise `UserError` if results cannot be added to a file."""
    read_results(path)
    try:
        check_writable(path.parent)
    except UserError as error:
        raise UserError(f"{error}; name a file for the results with --output") from error


def add_results(path: Path, results: Sequence[Result]) -> None:
    """Add results to a file, in place of those with the same key; others are kept."""
    merged = {result.key: result for result in [*read_results(path), *results]}
    lines = [result.model_dump_json(exclude_none=True) for result in merged.values()]
    write_whole(path, ("[\n" + ",\n".join(lines) + "\n]\n").encode())


def results_table(results: Sequence[Result]) -> str:
    """A row for each metric and a column for each checkpoint, as text."""
    names = list(dict.fromkeys(result.name for result in results))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        rows.setdefault((result.protocol, result.metric), {})[result.name] = _cell(result)
    table = [["protocol", "metric", *_short(names)]]
    table += [[*key, *(cells.get(name, "") for name in names)] for key, cells in rows.items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def _short(names: Sequence[str]) -> list[str]:
    """The last two parts of paths, which tell runs and iterations apart; more if they do not."""
    parts = [Path(name).parts for name in names]
    for count in range(2, max(map(len, parts), default=0)):
        shortened = ["/".join(of_name[-count:]) for of_name in parts]
        if len(set(shortened)) == len(names):
            return shortened
    return list(names)


def _cell(result: Result) -> str:
    text = f"{result.value:.2f}"
    if result.interval is not None:
        text += f" [{result.interval[0]:.2f}, {result.interval[1]:.2f}]"
    if result.deviation is not None:
        text += f" ± {result.deviation:.2f}"
    return text

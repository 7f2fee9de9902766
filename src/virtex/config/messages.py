"""Messages for settings that do not fit their schema or each other: one line for each problem.

A line names the key, its value, the file or override that set it, and what was expected, in
pydantic's words. A `ValueError` of a schema's own validator tells what was expected of one key.
"""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_jsonable_python

from virtex.config.earlier_names import KEYS
from virtex.config.section import Conflict

Path = tuple[str | int, ...]

BASE_KEY = "_BASE_"
"""The key that names the file that this one extends; every schema accepts it."""

_TYPES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "tuple_type": "a list",
    "model_type": "a section of settings",
}
"""The types that pydantic names in terms of JSON or Python, in terms of YAML."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_SHOWN = 100  # characters of a value in a message
_MOST_LINES = 50


Layer = tuple[str, dict[str, object]]
"""An origin, such as "in a.yaml", and its settings, which override those of earlier layers."""


@dataclass(frozen=True)
class Messages:
    """The wording of problems in `values`, which the `layers` were merged into.

    `file` is the file that lacks a missing key.
    """

    schema: type[BaseModel]
    layers: Sequence[Layer]
    values: object
    file: str

    @cached_property
    def fields(self) -> dict[Path, FieldInfo]:
        """All keys with their fields; sections are among them, as is `_BASE_`."""
        return {(BASE_KEY,): FieldInfo(), **dict(_fields(self.schema, ()))}

    def of_errors(self, error: ValidationError) -> list[str]:
        """A line for each value that does not fit the schema."""
        expectations: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False):
            if detail["type"] == "default_factory_not_called":
                continue  # a default that depends on a value that is wrong
            fact, expected = self._problem(detail)
            expectations.setdefault(fact, []).append(expected)
        # A value that fits none of several types has an error for each of them.
        return [
            f"{fact}; " + " or ".join([first, *(other.removeprefix("expected ") for other in rest)])
            for fact, [first, *rest] in expectations.items()
        ]

    def of_conflict(self, conflict: Conflict) -> str:
        """A line for keys that do not fit each other."""
        keys, reason = conflict
        *facts, last = (self._fact(tuple(key.split("."))) for key in keys)
        return f"{', '.join(facts)} and {last}; {reason}" if facts else f"{last}; {reason}"

    def _problem(self, detail: ErrorDetails) -> tuple[str, str]:
        """The fact that is wrong, and what was expected or the remedy."""
        path, value = _existing(self.values, detail["loc"])
        match detail["type"]:
            case "extra_forbidden":
                return self._unknown(path, value)
            case "missing" if isinstance(detail["loc"][-1], str):
                return f"{_dotted(detail['loc'])!r} is not set in {self.file}", "it is required"
            case "value_error":
                return self._fact(path), str(detail["ctx"]["error"])
        expected = _expected(detail)
        field = self.fields.get(path)
        if field is not None and type(None) in get_args(field.annotation):
            expected += " or null"
        return self._fact(path), expected + _hint(detail["type"], value)

    def _fact(self, path: Path) -> str:
        existing, value = _existing(self.values, path)
        if existing != path:
            default = self.fields[path].get_default(call_default_factory=True, validated_data={})
            return f"{_dotted(path)!r} is {_shown(default)} by default"
        return f"{_dotted(path)!r} is {_shown(value)} {self._origin(path)}"

    def _origin(self, path: Path) -> str:
        """The origin of the last layer that sets a path of the values."""
        return next(
            origin for origin, values in reversed(self.layers) if _existing(values, path)[0] == path
        )

    def _unknown(self, path: Path, value: object) -> tuple[str, str]:
        origin, section = self._origin(path), path[:-1]
        while isinstance(value, dict) and len(value) == 1:
            [(key, value)] = value.items()
            path = (*path, key)
        remedy = KEYS.get(_dotted(path)) or self._remedy(path, section)
        return f"unknown setting {_dotted(path)!r} {origin}", remedy

    def _remedy(self, path: Path, section: Path) -> str:
        """The setting of that name elsewhere, else the nearest in the section, else all of these.

        `path` is what the user wrote, `section` the part of it that exists.
        """
        wanted = _dotted(path).upper()[-_SHOWN:]  # comparing long names takes time
        last = wanted.rpartition(".")[2]
        namesakes = [_dotted(known) for known in self.fields if known[-1] == last]
        names = tuple(part for part in section if isinstance(part, str))
        here = [str(known[-1]) for known in self.fields if known[:-1] == names]
        name = str(path[len(section)]).upper()[:_SHOWN]
        nearest = [
            *difflib.get_close_matches(wanted, namesakes, n=1, cutoff=0.0),
            *(_dotted((*section, near)) for near in difflib.get_close_matches(name, here)),
        ]
        if nearest:
            return f"did you mean {nearest[0]!r}?"
        where = f" in {_dotted(section)!r}" if section else ""
        return f"the settings{where} are {', '.join(key for key in here if key != BASE_KEY)}"


def joined(lines: Sequence[str]) -> str:
    """One message of at least one line; of very many the first ones."""
    if len(lines) == 1:
        return lines[0]
    more = len(lines) - _MOST_LINES
    rest = [f"and {more} more"] if more > 0 else []
    return "\n  ".join([f"{len(lines)} problems:", *lines[:_MOST_LINES], *rest])


def _existing(values: object, location: Path) -> tuple[Path, object]:
    """The part of a validator's location that is in the values, and its value.

    The rest names the type that was tried, or an item that is missing.
    """
    for length, part in enumerate(location):
        try:
            values = values[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return location[:length], values
    return location, values


def _fields(schema: type[BaseModel], section: Path) -> Iterator[tuple[Path, FieldInfo]]:
    for name, field in schema.model_fields.items():
        path = (*section, field.alias or name)
        yield path, field
        # Of a section, or of each item of a list of sections.
        for kind in (field.annotation, *get_args(field.annotation)[:1]):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _fields(kind, path)


def _expected(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "missing":
            return f"expected at least {int(detail['loc'][-1]) + 1} items"
        case "too_long":
            return f"expected at most {detail['ctx']['max_length']} items"
        case kind if kind in _TYPES:
            return f"expected {_TYPES[kind]}"
    bounded = re.sub(r"^Input should be (?=greater|less)", "expected a number ", detail["msg"])
    return bounded.replace("Input should be", "expected")


def _hint(error: str, value: object) -> str:
    """A guess at what the user meant, in parentheses; empty if there is none."""
    match error, value:
        case "int_type", float() if value.is_integer():
            return f" (write {int(value)})"
        case "int_type" | "float_type", str() if _NUMBER.fullmatch(value):
            return " (remove the quotes)"
        case "string_type", bool() | int() | float():
            return " (put it in quotes)"
        case "tuple_type", str():
            return f" (write [{value:.{_SHOWN}}])"
        case "string_type", dict():
            return " (not a section; text with a colon needs quotes)"
    return ""


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    plain = to_jsonable_python(value)
    text = repr(plain) if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _dotted(path: Path) -> str:
    """`('OPTIM', 'LR_STEPS', 0)` as `OPTIM.LR_STEPS[0]`."""
    names = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return names.removeprefix(".")

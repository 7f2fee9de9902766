"""What a user reads when settings do not fit their schema: one line for each problem.

A line names the key, its value, the file or override that set it, and what was expected, in
pydantic's words. Two conventions for checks of a schema's own: a `ValueError` says what was
expected of one key; a `PydanticCustomError` of type "conflict" has the `reason` and the `keys` that
do not fit each other, dotted and relative to their section.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_jsonable_python

Path = tuple[str | int, ...]

BASE_KEY = "_BASE_"
"""The key that names the file below this one; every schema accepts it."""

_TYPES = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "tuple_type": "a list",
    "model_type": "a section of settings",
}
"""What YAML calls the types for which pydantic has the words of JSON."""

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
_SHOWN = 100  # characters of a value in a message
_MOST_LINES = 50


def problems(
    error: ValidationError,
    values: Mapping[str, object],
    origins: Mapping[tuple[str, ...], str],
    schema: type[BaseModel],
    file: str,
) -> list[str]:
    """One line for each problem.

    `values` are the merged settings, `origins` tell who set a path ("in a.yaml"), and `file` is to
    blame for what nobody set.
    """
    settings = _Settings(values, origins, dict(_fields(schema, ())), file)
    alternatives: dict[tuple[str, str], list[str]] = {}
    for detail in error.errors(include_url=False):
        fact, expected = settings.problem(detail)
        conflict = expected if detail["type"] == "conflict" else ""
        alternatives.setdefault((fact, conflict), []).append(expected)
    # A value that may be of two types and is of neither has two errors and gets one line.
    lines = [
        f"{fact}; " + " or ".join([first, *(other.removeprefix("expected ") for other in others)])
        for (fact, _), [first, *others] in alternatives.items()
    ]
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"and {more} more"]


@dataclass(frozen=True)
class _Settings:
    values: Mapping[str, object]
    origins: Mapping[tuple[str, ...], str]
    fields: Mapping[Path, FieldInfo]  # sections among them
    file: str

    def problem(self, detail: ErrorDetails) -> tuple[str, str]:
        """The fact that is wrong, and what was expected or the remedy."""
        path, value = self._existing(detail["loc"])
        context = detail.get("ctx", {})
        match detail["type"]:
            case "extra_forbidden":
                return self._unknown(path, value)
            case "missing" if isinstance(detail["loc"][-1], str):
                return f"{_dotted(detail['loc'])!r} is not set in {self.file}", "it is required"
            case "conflict":
                facts = [self._fact((*path, *key.split("."))) for key in context["keys"]]
                return ", ".join(facts), str(context["reason"])
            case "value_error":
                return self._fact(path), str(context["error"])
        expected = _expected(detail)
        field = self.fields.get(path)
        if field is not None and type(None) in get_args(field.annotation):
            expected += " or null"
        return self._fact(path), expected + _hint(detail["type"], value)

    def _existing(self, location: Path) -> tuple[Path, object]:
        """The part of a validator's location that is in the values, and its value.

        The rest names the type that was tried, or an item that is missing.
        """
        path: Path = ()
        value: object = self.values
        for part in location:
            try:
                value = value[part]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
            path = (*path, part)
        return path, value

    def _fact(self, path: Path) -> str:
        # The origin of a list's item is the list's.
        origin = self.origins.get(tuple(part for part in path if isinstance(part, str)))
        if origin is None:
            return f"{_dotted(path)!r} is {_shown(self.fields[path].default)} by default"
        return f"{_dotted(path)!r} is {_shown(self._existing(path)[1])} {origin}"

    def _unknown(self, path: Path, value: object) -> tuple[str, str]:
        origin = self.origins[path]  # type: ignore[index]
        section = path[:-1]
        while isinstance(value, dict) and len(value) == 1:
            [(key, value)] = value.items()
            path = (*path, key)
        return f"unknown setting {_dotted(path)!r} {origin}", self._remedy(path, section)

    def _remedy(self, path: Path, section: Path) -> str:
        """The setting of that name in another place, else the nearest in this one, else all here.

        `path` is what the user wrote, `section` the part of it that exists.
        """
        wanted = _dotted(path).upper()[-_SHOWN:]  # comparing takes time
        last = wanted.rpartition(".")[2]
        namesakes = [_dotted(known) for known in self.fields if known[-1] == last]
        here = [str(known[-1]) for known in self.fields if known[:-1] == section]
        name = str(path[len(section)]).upper()[:_SHOWN]
        nearest = [
            *difflib.get_close_matches(wanted, namesakes, n=1, cutoff=0.0),
            *(_dotted((*section, near)) for near in difflib.get_close_matches(name, here)),
        ]
        if nearest:
            return f"did you mean {nearest[0]!r}?"
        where = f" in {_dotted(section)!r}" if section else ""
        return f"the settings{where} are {', '.join(key for key in here if key != BASE_KEY)}"


def _fields(schema: type[BaseModel], section: Path) -> Iterator[tuple[Path, FieldInfo]]:
    if not section:
        yield (BASE_KEY,), FieldInfo()
    for name, field in schema.model_fields.items():
        path = (*section, field.alias or name)
        yield path, field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, path)


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
    """What the user probably meant, in brackets; often nothing."""
    match error, value:
        case "int_type", float() if value.is_integer():
            return f" (write {int(value)})"
        case "int_type" | "float_type", str() if _NUMBER.fullmatch(value):
            return " (remove the quotes)"
        case "string_type", bool() | int() | float():
            return " (put it in quotes)"
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

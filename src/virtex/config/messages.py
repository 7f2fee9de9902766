"""What a user reads when settings do not fit their schema: one line a problem.

The words come from the schema's JSON form and from the value, never from the validator, whose
language is not the user's. Two conventions for checks of a schema's own: a `ValueError` gives
what was expected of one key; a `PydanticCustomError` of type "conflict" gives `reason` and the
`keys` that do not fit each other, dotted and relative to their section.
"""

import difflib
import json
import math
from collections.abc import Iterator, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

Path = tuple[str | int, ...]
Node = Mapping[str, object]

_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "array": "a list",
    "object": "a section of settings",
    "null": "null",
}
_BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
_SHOWN = 100  # characters of a value in a message
_MOST_LINES = 50


def problems(
    error: ValidationError,
    values: Mapping[str, object],
    origins: Mapping[tuple[str, ...], str],
    schema: Node,
    file: str,
) -> list[str]:
    """One line for each thing that is wrong.

    `values` are the merged settings, `origins` say who set a path ("in a.yaml"), `schema` is the
    JSON schema, and `file` is to blame for what nobody set.
    """
    reporter = _Reporter(values, origins, schema, file)
    details = error.errors(include_url=False)
    lines = [reporter.line(detail) for detail in details[:_MOST_LINES]]
    if len(details) > _MOST_LINES:
        lines.append(f"and {len(details) - _MOST_LINES} more")
    return list(dict.fromkeys(lines))  # a value that is of none of two types is reported for both


class _Reporter:
    def __init__(
        self,
        values: Mapping[str, object],
        origins: Mapping[tuple[str, ...], str],
        schema: Node,
        file: str,
    ) -> None:
        self._values = values
        self._origins = origins
        self._schema = schema
        self._file = file

    def line(self, detail: ErrorDetails) -> str:
        path = self._existing(detail["loc"])
        context = detail.get("ctx", {})
        match detail["type"]:
            case "extra_forbidden":
                return self._unknown(path)
            case "missing" if isinstance(detail["loc"][-1], str):
                path = (*path, detail["loc"][-1])
                return f"{_key(path)} is not set in {self._file}; expected {self._expected(path)}"
            case "conflict":
                keys = [(*path, *key.split(".")) for key in context["keys"]]
                facts = ", ".join(self._fact(key) for key in keys)
                return f"{facts}; {context['reason']}"
            case "value_error":
                return f"{self._fact(path)}; {context['error']}"
            case _:
                hint = _hint(self._node(path), self._value(path))
                return f"{self._fact(path)}; expected {self._expected(path)}{hint}"

    def _existing(self, location: Path) -> Path:
        """The part of a validator's location that is in the values (it adds names of its own)."""
        path: Path = ()
        value: object = self._values
        for part in location:
            if isinstance(value, dict | list) and _holds(value, part):
                value = value[part]  # type: ignore[index]
                path = (*path, part)
        return path

    def _fact(self, path: Path) -> str:
        origin = self._origin(path)
        if origin is None:
            return f"{_key(path)} is {_shown(self._node(path).get('default'))} by default"
        return f"{_key(path)} is {_shown(self._value(path))} {origin}"

    def _origin(self, path: Path) -> str | None:
        """Who set a path; for an item of a list, who set the list."""
        named = tuple(part for part in path if isinstance(part, str))
        return self._origins.get(named)

    def _value(self, path: Path) -> object:
        value: object = self._values
        for part in path:
            assert isinstance(value, dict | list)
            value = value[part]  # type: ignore[index]
        return value

    def _node(self, path: Path) -> Node:
        """The JSON schema of a path; empty where the schema says nothing of it."""
        node = self._resolved(self._schema)
        for part in path:
            node = self._resolved(_child(node, part))
        return node

    def _resolved(self, node: Node) -> Node:
        reference = node.get("$ref")
        if not isinstance(reference, str):
            return node
        target: object = self._schema
        for part in reference.removeprefix("#/").split("/"):
            assert isinstance(target, Mapping)
            target = target[part]
        assert isinstance(target, Mapping)
        return target

    def _expected(self, path: Path) -> str:
        return _expectation(self._node(path))

    def _unknown(self, path: Path) -> str:
        origin = self._origin(path)
        value = self._value(path)
        section = path[:-1]
        while isinstance(value, dict) and len(value) == 1:
            [(key, value)] = value.items()
            path = (*path, key)
        return f"unknown setting {_key(path)} {origin}; {self._remedy(path, section)}"

    def _remedy(self, path: Path, section: Path) -> str:
        """The setting of that name in another place, else the nearest in this one, else all here.

        `path` is what the user wrote, `section` the part of it that exists.
        """
        wanted = ".".join(map(str, path)).upper()[-_SHOWN:]  # comparing takes time
        namesakes = [key for key in self._keys(self._schema, "") if _last(key) == _last(wanted)]
        nearest = difflib.get_close_matches(wanted, namesakes, n=1, cutoff=0.0)
        here = list(_properties(self._node(section)))
        name = str(path[len(section)]).upper()[:_SHOWN]
        nearest += [_dotted((*section, near)) for near in difflib.get_close_matches(name, here)]
        if nearest:
            return f"did you mean {nearest[0]!r}?"
        where = f" in {_key(section)}" if section else ""
        return f"the settings{where} are {', '.join(key for key in here if key[0] != '_')}"

    def _keys(self, node: Node, prefix: str) -> Iterator[str]:
        for name, child in _properties(self._resolved(node)).items():
            yield prefix + name
            yield from self._keys(child, f"{prefix}{name}.")


def _holds(value: dict[str, object] | list[object], part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(part, int) and part < len(value)


def _properties(node: Node) -> Mapping[str, Node]:
    properties = node.get("properties", {})
    assert isinstance(properties, Mapping)
    return properties


def _child(node: Node, part: str | int) -> Node:
    if isinstance(part, str):
        return _properties(node).get(part, {})
    prefix = node.get("prefixItems", [])
    assert isinstance(prefix, list)
    child = prefix[part] if part < len(prefix) else node.get("items", {})
    return child if isinstance(child, Mapping) else {}


def _expectation(node: Node) -> str:
    """What a JSON schema asks for, in words: "a number above 0 and at most 100"."""
    match node:
        case {"enum": list(allowed)}:
            return "one of " + ", ".join(map(_shown, allowed))
        case {"const": allowed}:
            return _shown(allowed)
        case {"anyOf": list(choices)}:
            return " or ".join(map(_expectation, choices))
    words = _WORDS.get(str(node.get("type")), "another value")
    bounds = [f"{word} {_shown(node[bound])}" for bound, word in _BOUNDS.items() if bound in node]
    sizes = [f"{node[size]}" for size in ("minItems", "maxItems") if size in node]
    if sizes:
        words += f" of {' to '.join(dict.fromkeys(sizes))} items"
    return ", ".join([words, " and ".join(bounds)]) if bounds else words


def _hint(node: Node, value: object) -> str:
    """What the user probably meant, in brackets; often nothing."""
    wanted = node.get("type")
    if isinstance(value, float) and not math.isfinite(value):
        return ", finite"
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return f" (write {int(value)})"
    if wanted in ("integer", "number") and isinstance(value, str) and _numeric(value):
        return " (remove the quotes)"
    if wanted == "string" and isinstance(value, bool | int | float):
        return " (put it in quotes)"
    if wanted == "string" and isinstance(value, dict):
        section = all(key.isidentifier() for key in value)
        return " (it is no section)" if section else " (text with a colon needs quotes)"
    return ""


def _numeric(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _key(path: Path) -> str:
    """`('OPTIM', 'LR_STEPS', 0)` as `'OPTIM.LR_STEPS[0]'`."""
    return repr(_dotted(path))


def _dotted(path: Path) -> str:
    names = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return names.removeprefix(".")


def _last(key: str) -> str:
    return key.rpartition(".")[2]

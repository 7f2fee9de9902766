"""Strict loading of settings: YAML files that extend others by `_BASE_`, and KEY VALUE overrides.

The schema is any pydantic model. A key is the field's alias (its name in upper case), dotted
through the sections: `OPTIM.LOOKAHEAD.STEPS`. Every mistake is a `UserError` that names file, key,
value, what was expected and the remedy; all are reported together.
"""

import json
import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from virtex.config import yaml12
from virtex.config.messages import BASE_KEY, Layer, Messages, joined
from virtex.config.packaged import find, named, shown
from virtex.config.section import Conflict
from virtex.errors import UserError
from virtex.files import read_at_most

Schema = TypeVar("Schema", bound=BaseModel)

_MOST_BYTES = 1 << 20  # of a file
_MOST_BASES = 30


def load(
    schema: type[Schema],
    path: Path,
    overrides: Sequence[str] = (),
    *,
    check: Callable[[Schema], Iterable[Conflict]] = lambda _: (),
) -> Schema:
    """Load a YAML file with the files that it extends, overridden by KEY VALUE pairs.

    The values of overrides are read as YAML (`1e-3` is a number, `[1, 2]` a list). `check` finds
    conflicts that the schema does not know; they are reported together with the schema's own.
    Raises `UserError`.
    """
    layers = [*file_layers(path), *override_layers(overrides)]
    return load_layers(schema, layers, shown(path), check=check)


def load_layers(
    schema: type[Schema],
    layers: Sequence[Layer],
    name: str,
    *,
    check: Callable[[Schema], Iterable[Conflict]] = lambda _: (),
) -> Schema:
    """As `load`, from layers, of which later ones override earlier ones.

    `name` is the source that a message says to lack a required key.
    """
    values: object = {}
    for _, layer in layers:
        values = _merged(values, layer)
    messages = Messages(schema, layers, values, name)
    conflicts: list[Conflict] = []
    lines: list[str] = []
    try:
        # As JSON, because strict validation of JSON takes a list for a tuple and text for a path,
        # and nothing else that differs in type.
        loaded = schema.model_validate_json(
            json.dumps(values), strict=True, by_alias=True, by_name=False, context=conflicts
        )
    except ValidationError as error:
        lines = messages.of_errors(error)
    else:
        conflicts += check(loaded)
        if not conflicts:
            return loaded
    raise UserError(joined([*lines, *map(messages.of_conflict, conflicts)]))


def dump(settings: BaseModel) -> str:
    """YAML of all settings with upper-case keys; loading it gives an equal value."""
    return yaml12.write(settings.model_dump(mode="json", by_alias=True))


def flat(settings: BaseModel) -> dict[str, object]:
    """All settings by dotted key, such as `OPTIM.LR`, in the schema's order; values as in JSON."""
    return dict(leaves(settings.model_dump(mode="json", by_alias=True)))


def json_schema(schema: type[BaseModel]) -> dict[str, object]:
    """JSON schema (draft 2020-12) of a settings file, for editors; allows `_BASE_`."""
    described = schema.model_json_schema(by_alias=True)
    base = {
        "type": "string",
        "description": "YAML file that this one extends: its path, relative to this one, or the "
        "name of a configuration of the package.",
    }
    described["properties"] = {BASE_KEY: base} | described["properties"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | described


def leaves(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The values of nested settings by dotted key."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _merged(below: object, above: object) -> object:
    """`above` over `below`: mappings are merged key by key, anything else is replaced."""
    if not isinstance(above, dict):
        return above
    if not isinstance(below, dict):
        below = {}
    return below | {key: _merged(below.get(key), value) for key, value in above.items()}


def file_layers(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Layer]:
    """The layers of a file, the deepest base first; `above` are the files that extend it.

    Instead of a path, `path` may be the name of a configuration of the package.
    """
    if not above:
        path = find(path)
    chain = (*above, path)
    if os.path.realpath(path) in map(os.path.realpath, above):
        cycle = " -> ".join(map(shown, chain))
        raise UserError(f"{BASE_KEY} forms a cycle: {cycle}; remove {BASE_KEY} from one of them")
    if len(above) > _MOST_BASES:
        raise UserError(
            f"{shown(path)} lies below {len(above)} files, each the {BASE_KEY} of the next; "
            f"expected at most {_MOST_BASES}; combine some of them"
        )
    values = _read(path, above)
    base = values.pop(BASE_KEY, None)
    if base is not None:
        if not isinstance(base, str):
            raise UserError(
                f"{BASE_KEY!r} is {base!r} in {shown(path)}; expected the path of one YAML file"
            )
        yield from file_layers(_base(path, base), chain)
    yield f"in {shown(path)}", values


def _base(path: Path, base: str) -> Path:
    """The file that `path` extends: one beside it, or else the package's of this name."""
    beside = path.parent / base
    return beside if beside.exists() else named(base) or beside


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, object]:
    name, remedy = shown(path), "check the path of the YAML file"
    if above:
        name += f" (named as {BASE_KEY} by {shown(above[-1])})"
    else:
        remedy += ", or give one of the names that `virtex config --list` shows"
    content = read_at_most(path, _MOST_BYTES, name=name, remedy=remedy)
    try:
        value = yaml12.parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        place = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise UserError(f"{name} is not UTF-8 text ({place}); save it as UTF-8") from None
    except yaml12.YamlError as problem:
        raise UserError(f"{name} is not valid YAML, {problem}") from None
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        found = "is empty" if value is None else f"holds {kind}"
        raise UserError(f"{name} {found}; expected settings such as `OPTIM:`")
    return value


def override_layers(overrides: Sequence[str]) -> Iterator[Layer]:
    """A layer for each KEY VALUE pair of the command line."""
    if len(overrides) % 2:
        raise UserError(
            f"expected KEY VALUE pairs on the command line, but {overrides[-1]!r} has no value in: "
            f"{' '.join(overrides)}"
        )
    for key, text in zip(overrides[::2], overrides[1::2], strict=True):
        if not re.fullmatch(r"\w+(\.\w+)*", key):
            raise UserError(
                f"{key!r} on the command line is not the name of a setting; "
                "expected KEY VALUE pairs such as OPTIM.LR 1e-3"
            )
        try:
            value = yaml12.parse(text)
        except yaml12.YamlError as problem:
            raise UserError(
                f"{key!r} is {text!r} on the command line, which is not valid YAML: "
                f"{problem.reason}; text with special characters needs two pairs of quotes: \"'…'\""
            ) from None
        *sections, last = key.split(".")
        values = {last: value}
        for section in reversed(sections):
            values = {section: values}
        yield "on the command line", values

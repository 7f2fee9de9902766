"""Strict settings: YAML files with `_BASE_` inheritance and KEY VALUE overrides, into a schema.

The schema is any pydantic model; the room knows none. A key is the field's alias (its name in
upper case), dotted through the sections: `OPTIM.LOOKAHEAD.STEPS`. Every mistake is a `UserError`
that names file, key, value, what was expected and the remedy; all are reported at once.
"""

import json
import os.path
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from virtex.config import yaml12 as settings_yaml
from virtex.config.messages import BASE_KEY, problems
from virtex.errors import UserError
from virtex.files import check_local

Schema = TypeVar("Schema", bound=BaseModel)

_MOST_BYTES = 4 << 20  # of a file
_MOST_BASES = 30


@dataclass(frozen=True)
class _Layer:
    """Settings of one origin, such as "in a.yaml"; later layers go on top of earlier ones."""

    origin: str
    values: dict[str, object]


def load(
    schema: type[Schema],
    path: Path,
    overrides: Sequence[str] = (),
    *,
    context: Mapping[str, object] | None = None,
) -> Schema:
    """The settings of a YAML file, its `_BASE_` chain below and KEY VALUE overrides above it.

    Mappings are merged key by key; anything else replaces what lies below. The values of overrides
    are read as YAML (`1e-3` is a number, `[1, 2]` a list). `context` is for checks of the schema's
    own. Raises `UserError`.
    """
    layers = [*_file_layers(path, ()), *_override_layers(overrides)]
    values: dict[str, object] = {}
    origins: dict[tuple[str, ...], str] = {}
    for layer in layers:
        _lay(values, layer.values, (), layer.origin, origins)
    try:
        # As JSON, because strict validation of JSON takes a list for a tuple and text for a path,
        # and nothing else that differs in type.
        return schema.model_validate_json(
            json.dumps(values), strict=True, by_alias=True, by_name=False, context=context
        )
    except ValidationError as error:
        found = problems(error, values, origins, schema, _name(path))
    if len(found) == 1:
        raise UserError(found[0])
    raise UserError("\n  ".join([f"{len(found)} problems:", *found]))


def dump(settings: BaseModel) -> str:
    """YAML of all settings with upper-case keys; loading it gives an equal value."""
    return settings_yaml.write(settings.model_dump(mode="json", by_alias=True))


def flat(settings: BaseModel) -> dict[str, object]:
    """All settings by dotted key, such as `OPTIM.LR`, in the schema's order; values as in JSON."""
    return dict(_leaves(settings.model_dump(mode="json", by_alias=True), ""))


def json_schema(schema: type[BaseModel]) -> dict[str, object]:
    """JSON schema (draft 2020-12) of a settings file, for editors; allows `_BASE_`."""
    described = schema.model_json_schema(by_alias=True)
    base = {"type": "string", "description": "YAML file below this one, relative to this file."}
    described["properties"] = {BASE_KEY: base} | described["properties"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | described


def _leaves(values: dict[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _lay(
    below: dict[str, object],
    above: dict[str, object],
    at: tuple[str, ...],
    origin: str,
    origins: dict[tuple[str, ...], str],
) -> None:
    """Merge `above` into `below`, and note in `origins` who set each key; mutates both."""
    for key, value in above.items():
        path = (*at, key)
        origins[path] = origin
        if not isinstance(value, dict):
            below[key] = value
            continue
        section = below.get(key)
        if not isinstance(section, dict):
            below[key] = section = {}
        _lay(section, value, path, origin, origins)


def _file_layers(path: Path, above: tuple[Path, ...]) -> Iterator[_Layer]:
    """The layers of a file, the deepest base first; `above` are the files that led here."""
    chain = (*above, path)
    if os.path.realpath(path) in map(os.path.realpath, above):
        shown = " -> ".join(_name(file) for file in chain)
        raise UserError(f"{BASE_KEY} goes in a circle: {shown}; remove {BASE_KEY} from one of them")
    if len(above) > _MOST_BASES:
        raise UserError(
            f"{_name(path)} lies below {len(above)} files, each the {BASE_KEY} of the next; "
            f"expected at most {_MOST_BASES}: put several into one"
        )
    values = _read(path, above)
    base = values.pop(BASE_KEY, None)
    if base is not None:
        if not isinstance(base, str):
            raise UserError(
                f"{BASE_KEY!r} is {base!r} in {_name(path)}; expected the path of one YAML file"
            )
        yield from _file_layers(path.parent / base, chain)
    yield _Layer(f"in {_name(path)}", values)


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, object]:
    check_local(path)
    name = _name(path)
    named = f" (named as {BASE_KEY} by {_name(above[-1])})" if above else ""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(
                f"{name}{named} is larger than {_MOST_BYTES >> 20} MB; name a YAML file"
            )
        text = content.decode("utf-8-sig")
        value = settings_yaml.parse(text)
    except FileNotFoundError:
        raise UserError(f"{name}{named} does not exist; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{name}{named} is a directory; name a YAML file") from None
    except OSError as error:
        raise UserError(f"cannot read {name}{named}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        place = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
        raise UserError(f"{name}{named} is not UTF-8 text ({place}); save it as UTF-8") from None
    except settings_yaml.YamlError as problem:
        raise UserError(f"{name}{named} is not valid YAML, {problem}") from None
    if value is None:
        raise UserError(f"{name}{named} is empty; expected settings such as `OPTIM:`")
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "one value"
        raise UserError(f"{name}{named} holds {kind}; expected settings such as `OPTIM:`")
    return value


def _override_layers(overrides: Sequence[str]) -> Iterator[_Layer]:
    for key, text in _pairs(overrides):
        if not re.fullmatch(r"\w+(\.\w+)*", key):
            raise UserError(
                f"{key!r} on the command line is not the name of a setting; "
                "expected KEY VALUE pairs such as OPTIM.LR 1e-3"
            )
        try:
            value = settings_yaml.parse(text)
        except settings_yaml.YamlError as problem:
            raise UserError(
                f"{key!r} is {text!r} on the command line, which is not valid YAML: "
                f"{problem.reason}; if it is text, put it in quotes twice: \"'…'\""
            ) from None
        *sections, last = key.split(".")
        values = {last: value}
        for section in reversed(sections):
            values = {section: values}
        yield _Layer("on the command line", values)


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(overrides) % 2:
        raise UserError(
            f"expected KEY VALUE pairs on the command line, but {overrides[-1]!r} has no partner "
            f"in: {' '.join(overrides)}"
        )
    return zip(overrides[::2], overrides[1::2], strict=True)


def _name(path: Path) -> str:
    """How a message calls a file: without the `..` that a chain of bases piles up."""
    return os.path.normpath(path)

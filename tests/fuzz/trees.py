"""Values of YAML and JSON, drawn whole and changed in places."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_SCALARS = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, float("nan")),
    *(
        float("inf"),
        "",
        " ",
        "a",
        "\0",
        "\ud800",
        "é\u2028",
        "../../etc/passwd",
        "/dev/zero",
        "[",
        "1e999",
    ),
    *("a" * 5000, "{'p': 1}", "*a", "&a", "!!python/name:os.system", "~", "2020-01-01"),
)


def tree(rng: np.random.Generator, keys: Sequence[str], depth: int = 0) -> Any:
    """A value of up to some dozen parts, whose mappings have `keys` and others."""
    kind = rng.integers(6) if depth < 5 else 5
    if kind == 0:
        return [tree(rng, keys, depth + 1) for _ in range(rng.integers(5))]
    if kind <= 2:
        return {_key(rng, keys): tree(rng, keys, depth + 1) for _ in range(rng.integers(5))}
    if kind == 3 and rng.integers(10) == 0:
        return _nested(rng, int(2 ** rng.uniform(0, 11)))
    return scalar(rng)


def scalar(rng: np.random.Generator) -> Any:
    return _SCALARS[int(rng.integers(len(_SCALARS)))]


def changed(value: Any, rng: np.random.Generator, keys: Sequence[str]) -> Any:
    """The value with one part of it replaced, left out, doubled or put elsewhere; mutates it."""
    containers = [part for part in _parts(value) if part]
    if not containers:
        return tree(rng, keys)
    container = containers[int(rng.integers(len(containers)))]
    names = list(container) if isinstance(container, dict) else list(range(len(container)))
    name = names[int(rng.integers(len(names)))]
    match int(rng.integers(5)):
        case 0:
            container[name] = scalar(rng)
        case 1:
            container[name] = tree(rng, keys)
        case 2:
            del container[name]
        case 3 if isinstance(container, dict):
            container[_key(rng, keys)] = container.pop(name)
        case 3:
            container.insert(name, container[name])
        case _:
            container[name] = containers[int(rng.integers(len(containers)))]
            if any(part is container for part in _parts(container[name])):
                container[name] = scalar(rng)  # else it would hold itself
    return value


def _parts(value: Any) -> Iterator[Any]:
    """All containers in a value, itself too."""
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _parts(inner)


def _key(rng: np.random.Generator, keys: Sequence[str]) -> str:
    if rng.integers(4):
        return keys[int(rng.integers(len(keys)))]
    return str(scalar(rng))


def _nested(rng: np.random.Generator, depth: int) -> Any:
    value: Any = None
    for _ in range(min(depth, 400)):  # as deep as Python's own writers go
        value = [value] if rng.integers(2) else {"a": value}
    return value

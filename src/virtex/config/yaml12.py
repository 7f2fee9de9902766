"""Strict reading and writing of YAML by the YAML 1.2 core schema.

Plain values are strings, integers, floats (also `1e-3`), `true`, `false` and `null`. `yes`, `1:30`
and dates are strings and `010` is ten, which differs in YAML 1.1, the version of PyYAML. Tags,
repeated keys and keys that are not strings are refused. Nothing is ever executed, and the size and
depth of a value are bounded.
"""

import re

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.error import Mark, MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.reader import ReaderError
from yaml.representer import BaseRepresenter

_TAG = "tag:yaml.org,2002:"
# Tag, pattern, first characters of a match; int comes before float, whose pattern includes it.
_PLAIN = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)
_MOST_DIGITS = 1000
_MOST_VALUES = 100_000  # with aliases expanded
_DEEPEST = 20


class YamlError(Exception):
    """A mistake in a YAML text and its place; `line` and `column` count from 1."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.reason = reason


def parse(text: str) -> object:
    """The value of one YAML document; raises `YamlError`."""
    try:
        value: object = yaml.load(text, Loader=_Loader)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ": ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(reason, *_position(mark)) from None
    except ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        raise YamlError(
            f"character U+{ord(text[error.position]):04X} is not allowed", line, column
        ) from None
    except RecursionError:
        raise YamlError("nested too deeply", 1, 1) from None
    _check_extent(value, 0, {})
    return value


def write(value: object) -> str:
    """YAML in block style, with keys in order, that `parse` reads back as the same value."""
    # Without a limit on the width, as long strings are hard to search for when they are folded.
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def _check_extent(value: object, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of values in a value with all aliases expanded, and its depth.

    `known` has the result for each list and mapping by id, as an alias is the same object. Raises
    `YamlError` if either is too large.
    """
    if not isinstance(value, dict | list):
        return 1, 0
    if depth < _DEEPEST and id(value) not in known:
        inner = value.values() if isinstance(value, dict) else value
        extents = [_check_extent(item, depth + 1, known) for item in inner]
        height = 1 + max((height for _, height in extents), default=0)
        known[id(value)] = 1 + sum(values for values, _ in extents), height
    values, height = known.get(id(value), (1, 1))
    if depth + height > _DEEPEST:
        raise YamlError("nested too deeply", 1, 1)
    if values > _MOST_VALUES:
        raise YamlError(f"its aliases (*name) expand to more than {_MOST_VALUES} values", 1, 1)
    return values, height


def _position(mark: Mark | None) -> tuple[int, int]:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, beginnings in _PLAIN:
        for character in beginnings:
            # PyYAML calls match, not fullmatch.
            compiled = re.compile(rf"(?:{pattern})\Z")
            table.setdefault(character, []).append((_TAG + tag, compiled))
    return table


def _error(problem: str, node: Node) -> ConstructorError:
    return ConstructorError(None, None, problem, node.start_mark)


def _construct_int(_loader: "_Loader", node: ScalarNode) -> int:
    if len(node.value) > _MOST_DIGITS:
        raise _error("the number has too many digits", node)
    return int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)


def _construct_text(_loader: "_Loader", node: ScalarNode) -> str:
    text: str = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _error("half of a surrogate pair is not allowed", node)
    if "\0" in text:  # No path or name can contain it.
        raise _error("the character U+0000 is not allowed", node)
    return text


def _construct_list(loader: "_Loader", node: SequenceNode) -> list[object]:
    # Not PyYAML's generator, so that a list that contains itself is an error.
    return loader.construct_sequence(node, deep=True)


def _construct_mapping(loader: "_Loader", node: MappingNode) -> dict[str, object]:
    mapping: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _error(f"the key {key!r} is not a string", key_node)
        if key in mapping:
            raise _error(f"the key {key!r} is given twice; keep one", key_node)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()
    yaml_constructors = {  # noqa: RUF012 - PyYAML's own way to define the tags
        _TAG + "null": SafeConstructor.construct_yaml_null,
        _TAG + "bool": SafeConstructor.construct_yaml_bool,
        _TAG + "int": _construct_int,
        _TAG + "float": SafeConstructor.construct_yaml_float,
        _TAG + "str": _construct_text,
        _TAG + "seq": _construct_list,
        _TAG + "map": _construct_mapping,
    }

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace(_TAG, "!!")
            problem = f"the tag {shown!r} is not allowed in settings; write a plain value"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


def _represent_text(dumper: BaseRepresenter, text: str) -> ScalarNode:
    # PyYAML's other styles lose some line separators, such as U+0085.
    return dumper.represent_scalar(_TAG + "str", text, style=None if text.isprintable() else '"')


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _resolvers()
    yaml_representers = yaml.SafeDumper.yaml_representers | {str: _represent_text}

    def ignore_aliases(self, _data: object) -> bool:
        return True

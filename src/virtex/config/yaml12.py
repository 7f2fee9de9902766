"""The YAML of settings: the YAML 1.2 core schema, strictly, for reading and for writing.

Plain values are text, whole numbers, numbers (`1e-3` too), `true`, `false` and `null`; `yes`,
`010`, `1:30` and dates are what they look like, which PyYAML's own YAML 1.1 rules would change.
Tags, repeated keys and keys that are not text are refused. Nothing is ever executed, and no text
becomes more values than a person could have written.
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
# Tag, pattern, how a match can begin; int stands before float, whose pattern includes it.
_PLAIN = (
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)
_MOST_CHARACTERS = 1 << 20
_MOST_DIGITS = 1000
_MOST_VALUES = 100_000  # aliases written out
_DEEPEST = 20


class YamlError(Exception):
    """What is wrong with a YAML text, and where; `line` and `column` count from 1."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {reason}")
        self.reason = reason


def parse(text: str) -> object:
    """The value of one YAML document; raises `YamlError`."""
    if len(text) > _MOST_CHARACTERS:
        raise YamlError(f"more than {_MOST_CHARACTERS} characters are no settings", 1, 1)
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
    """YAML in block style that `parse` reads back as the same value; order of keys is kept."""
    # A width without bound: folded lines would make long strings harder to search for.
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf"))


def _check_extent(value: object, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a value is when its aliases are written out, and how deep it is."""
    if not isinstance(value, dict | list):
        return 1, 0
    values, height = known.get(id(value), (1, 0))
    if id(value) not in known and depth < _DEEPEST:
        for inner in value.values() if isinstance(value, dict) else value:
            inner_values, inner_height = _check_extent(inner, depth + 1, known)
            values, height = values + inner_values, max(height, 1 + inner_height)
        known[id(value)] = values, height
    if depth + height >= _DEEPEST:
        raise YamlError("nested too deeply", 1, 1)
    if values > _MOST_VALUES:
        raise YamlError(f"its aliases (*name) stand for more than {_MOST_VALUES} values", 1, 1)
    return values, height


def _position(mark: Mark | None) -> tuple[int, int]:
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    table: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, beginnings in _PLAIN:
        for character in beginnings:
            # PyYAML uses match, not fullmatch.
            compiled = re.compile(rf"(?:{pattern})\Z")
            table.setdefault(character, []).append((_TAG + tag, compiled))
    return table


def _construct_int(_loader: "_Loader", node: ScalarNode) -> int:
    if len(node.value) > _MOST_DIGITS:
        raise ConstructorError(None, None, "a number of too many digits", node.start_mark)
    return int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)


def _construct_text(_loader: "_Loader", node: ScalarNode) -> str:
    text: str = node.value
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ConstructorError(None, None, "half of a surrogate pair", node.start_mark)
    if "\0" in text:  # which no path and no name can hold
        raise ConstructorError(None, None, "the character U+0000 is not allowed", node.start_mark)
    return text


def _construct_list(loader: "_Loader", node: SequenceNode) -> list[object]:
    # Not PyYAML's generator, so that a list that contains itself is an error.
    return loader.construct_sequence(node, deep=True)


def _construct_mapping(loader: "_Loader", node: MappingNode) -> dict[str, object]:
    mapping: dict[str, object] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise ConstructorError(None, None, f"the key {key!r} is not text", key_node.start_mark)
        if key in mapping:
            raise ConstructorError(
                None, None, f"the key {key!r} is given twice; keep one", key_node.start_mark
            )
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()
    yaml_constructors = {  # noqa: RUF012 - PyYAML's own way to say which tags there are
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

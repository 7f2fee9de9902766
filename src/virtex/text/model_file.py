"""The file of a SentencePiece model, a serialized protocol buffer, as far as it is read here.

Field 2 of a model holds the trainer's settings and field 3 the normalizer's, whose field 1 is the
name of the normalizer. SentencePiece does not use that name when it loads a model.
"""

from typing import NamedTuple

_TRAINER, _NORMALIZER = 2, 3
_NAME = 1
_DELIMITED = 2
"""The wire type of a field that begins with its length."""


class _Field(NamedTuple):
    """Where a field lies in its message, and where its content begins."""

    begin: int
    content: int
    end: int


def is_complete(model: bytes) -> bool:
    """Whether the parts are there that follow the pieces."""
    return {_TRAINER, _NORMALIZER} <= _fields(model).keys()


def normalizer_name(model: bytes) -> str:
    """The name of the normalizer of a complete model; empty if it has none."""
    normalizer = _fields(model)[_NORMALIZER]
    name, _ = _split_name(model[normalizer.content : normalizer.end])
    return name.decode("utf-8", "replace")


def with_normalizer_name(model: bytes, name: str) -> bytes:
    """A complete model with another name of its normalizer."""
    normalizer = _fields(model)[_NORMALIZER]
    _, rest = _split_name(model[normalizer.content : normalizer.end])
    renamed = _delimited(_NORMALIZER, _delimited(_NAME, name.encode()) + rest)
    return model[: normalizer.begin] + renamed + model[normalizer.end :]


def _split_name(normalizer: bytes) -> tuple[bytes, bytes]:
    """The name, which is written first, and all that follows it."""
    tag, position = _varint(normalizer, 0)
    if tag != _NAME << 3 | _DELIMITED:
        return b"", normalizer
    length, position = _varint(normalizer, position)
    return normalizer[position : position + length], normalizer[position + length :]


def _fields(message: bytes) -> dict[int, _Field]:
    """The last field of each number, up to the first invalid field."""
    fields = {}
    position = 0
    while position < len(message):
        begin = position
        tag, position = _varint(message, begin)
        length, content = _varint(message, position)
        position = content + length
        # Every field of a model is delimited.
        if tag & 7 != _DELIMITED or position > len(message):
            break
        fields[tag >> 3] = _Field(begin, content, position)
    return fields


def _delimited(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _DELIMITED) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    digits = []
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A variable-length integer (seven bits a byte, lowest first) and the position after it."""
    value = shift = 0
    more = True
    while more and position < len(message):
        value |= (message[position] & 0x7F) << shift
        more = message[position] >= 0x80
        shift += 7
        position += 1
    return value, position

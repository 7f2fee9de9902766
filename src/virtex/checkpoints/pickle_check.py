"""Symbolic unpickling of tensors and plain values, without creating any tensor.

A pickle is a program for a small stack machine. Only the opcodes that `torch.save` writes and the
names below are allowed; anything else is an `UnpicklingError`. The sizes of each tensor are checked
against its storage.
"""

import pickle
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch

_MOST_STEPS = 2_000_000  # a tensor takes about 30
_MOST_VALUES = 1_000_000
_DEEPEST = 64

_ELEMENT_BYTES = {
    "torch BoolStorage": 1,
    "torch ByteStorage": 1,
    "torch CharStorage": 1,
    "torch ShortStorage": 2,
    "torch HalfStorage": 2,
    "torch BFloat16Storage": 2,
    "torch IntStorage": 4,
    "torch FloatStorage": 4,
    "torch LongStorage": 8,
    "torch DoubleStorage": 8,
    "torch ComplexFloatStorage": 8,
    "torch ComplexDoubleStorage": 16,
    "torch.storage UntypedStorage": 1,
}
_TENSOR = ("torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2")
_TENSOR_OF_TYPE = "torch._utils _rebuild_tensor_v3"
_PARAMETER = "torch._utils _rebuild_parameter"
_CALLED = {
    *("collections OrderedDict", "collections Counter", "_codecs encode"),
    *("torch Size", "torch device", *_TENSOR, _TENSOR_OF_TYPE, _PARAMETER),
}


@dataclass(frozen=True)
class _Name:
    """A name to be called, with its module, such as "collections OrderedDict"."""

    text: str


@dataclass(frozen=True)
class _Storage:
    bytes: int
    element_bytes: int


class _Tensor:
    """A tensor whose sizes have been checked."""


class SymbolicUnpickler:
    """Follows pickles one after another; `storages` maps each storage's key to its bytes.

    `values` raises `pickle.UnpicklingError` for anything but tensors and plain values, `ValueError`
    or `LookupError` for what is inconsistent or too large.
    """

    def __init__(self) -> None:
        self.storages: dict[str, int] = {}
        self._steps = 0
        self._hooks: list[object] = []
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def values(self, file: BinaryIO) -> object:
        """The value of the file's next pickle; mappings, lists and tuples are built."""
        self._stack, self._below, self._memo = [], [], {}
        for step, argument, _ in pickletools.genops(file):
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise ValueError("it holds too many values other than tensors")
            if step.name == "STOP":
                break
            if step.name not in _STEPS:
                raise pickle.UnpicklingError(f"the opcode {step.name}")
            _STEPS[step.name](self, argument)
        value: object = self._stack.pop()
        _check_extent(value, 0, {})
        if any(self._hooks):
            raise pickle.UnpicklingError("hooks of a tensor")
        return value

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _mark(self, _: object) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        """What was pushed since the last mark."""
        items, self._stack = self._stack, self._below.pop()
        return items

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("it takes more values from the stack than there are")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise ValueError("values are appended to something other than a list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        _fill(self._stack[-1], zip(items[::2], items[1::2], strict=True))

    def _name(self, text: str) -> None:
        module, _, name = text.partition(" ")
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            self._push(dtype)
        elif text in _ELEMENT_BYTES or text in _CALLED:
            self._push(_Name(text))
        else:
            raise pickle.UnpicklingError(text)

    def _storage(self, _: object) -> None:
        match self._stack.pop():
            case ("storage", _Name(name), str(key), str(), int(elements), *view) if not any(view):
                element_bytes = _ELEMENT_BYTES[name]
                size = elements * element_bytes
            case _:
                raise pickle.UnpicklingError("something other than a tensor's storage")
        if elements < 0 or self.storages.setdefault(key, size) != size:
            raise ValueError("a storage has two sizes, or a negative one")
        self._push(_Storage(size, element_bytes))

    def _attributes(self, _: object) -> None:
        """State dicts have their versions as an attribute; no other attribute is allowed."""
        attributes, target = self._stack.pop(), self._stack[-1]
        if type(target) is not dict or type(attributes) is not dict:
            raise pickle.UnpicklingError("attributes of an object")
        if attributes.keys() - {"_metadata"}:
            raise pickle.UnpicklingError("attributes of a mapping")

    def _call(self, _: object) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, _Name) or type(arguments) is not tuple:
            raise pickle.UnpicklingError("a call of something other than a name")
        self._push(self._result(called.text, arguments))

    def _result(self, name: str, arguments: tuple[Any, ...]) -> object:
        match arguments:
            case (_Storage() as storage, int(start), tuple(size), tuple(stride), *_) if (
                name in _TENSOR
            ):
                self._hooks += arguments[5:]  # and whatever else sets a tensor's inner state
                return _tensor(storage.bytes // storage.element_bytes, start, size, stride)
            case (
                _Storage() as storage,
                int(start),
                tuple(size),
                tuple(stride),
                bool(),
                hooks,
                torch.dtype() as dtype,
                *metadata,
            ) if name == _TENSOR_OF_TYPE:
                self._hooks += [hooks, *metadata]
                return _tensor(storage.bytes // dtype.itemsize, start, size, stride)
            case (_Tensor() as tensor, bool(), hooks) if name == _PARAMETER:
                self._hooks.append(hooks)
                return tensor
        return _plain(name, arguments)


def _plain(name: str, arguments: tuple[Any, ...]) -> object:
    """The result of a call that gives a plain value."""
    match name, arguments:
        case "collections OrderedDict", ():
            return {}
        case "collections OrderedDict", (list(pairs),):
            return _fill({}, pairs)
        case "collections Counter", (dict(counts),):
            return dict(counts)
        case "_codecs encode", (str(text), "latin1"):
            return text
        case "torch Size", (tuple(size),):
            return size
        case "torch device", (str(kind), *index) if all(type(part) is int for part in index):
            return kind
    raise pickle.UnpicklingError(f"a call of {name}")


def _fill(target: object, pairs: Any) -> dict[Any, Any]:
    if type(target) is not dict:
        raise ValueError("values are set in something other than a mapping")
    for key, value in pairs:
        # Other keys can be made to collide, so that filling a mapping would take forever.
        if not isinstance(key, str | int | None) or (
            isinstance(key, int) and key >> 63 not in (0, -1)
        ):
            raise ValueError(f"a key of type {type(key).__name__}")
        target[key] = value
    return target


def _tensor(held: int, start: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> _Tensor:
    """A tensor in a storage that holds `held` values of its type."""
    if not all(type(number) is int and number >= 0 for number in (start, *size, *stride)):
        raise ValueError("sizes of a tensor that are not whole numbers")
    elements, end = 1, start + 1
    for count, step in zip(size, stride, strict=True):
        elements *= count
        end += (count - 1) * step
    # With strides of 0, a few bytes can be a tensor of any size.
    if elements and (end > held or elements > held):
        raise ValueError(f"a tensor of {elements} values in a storage of {held}")
    return _Tensor()


def _check_extent(value: object, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of values, each shared one counted every time, and the depth of nesting."""
    if not isinstance(value, dict | list | tuple):
        if isinstance(value, _Name | _Storage):
            raise pickle.UnpicklingError("a name instead of a value")
        return 1, 0
    values, height = known.get(id(value), (1, 0))
    if id(value) not in known:
        if depth >= _DEEPEST:
            raise ValueError("its values are nested too deeply, or contain themselves")
        for inner in value.values() if isinstance(value, dict) else value:
            inner_values, inner_height = _check_extent(inner, depth + 1, known)
            values, height = values + inner_values, max(height, 1 + inner_height)
        known[id(value)] = values, height
    if values > _MOST_VALUES or depth + height > _DEEPEST:
        raise ValueError("it holds too many values, or they are nested too deeply")
    return values, height


_STEPS: Mapping[str, Callable[[SymbolicUnpickler, Any], None]] = {
    "PROTO": lambda *_: None,  # the version adds nothing to the opcodes
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"),
        SymbolicUnpickler._push,
    ),
    "NONE": lambda machine, _: machine._push(None),
    "NEWTRUE": lambda machine, _: machine._push(True),
    "NEWFALSE": lambda machine, _: machine._push(False),
    "EMPTY_TUPLE": lambda machine, _: machine._push(()),
    "EMPTY_LIST": lambda machine, _: machine._push([]),
    "EMPTY_DICT": lambda machine, _: machine._push({}),
    "TUPLE1": lambda machine, _: machine._push(tuple(machine._last(1))),
    "TUPLE2": lambda machine, _: machine._push(tuple(machine._last(2))),
    "TUPLE3": lambda machine, _: machine._push(tuple(machine._last(3))),
    "MARK": SymbolicUnpickler._mark,
    "TUPLE": lambda machine, _: machine._push(tuple(machine._marked())),
    "APPEND": lambda machine, _: machine._append(machine._last(1)),
    "APPENDS": lambda machine, _: machine._append(machine._marked()),
    "SETITEM": lambda machine, _: machine._set(machine._last(2)),
    "SETITEMS": lambda machine, _: machine._set(machine._marked()),
    "BINPUT": SymbolicUnpickler._put,
    "LONG_BINPUT": SymbolicUnpickler._put,
    "BINGET": lambda machine, index: machine._push(machine._memo[index]),
    "LONG_BINGET": lambda machine, index: machine._push(machine._memo[index]),
    "GLOBAL": SymbolicUnpickler._name,
    "BINPERSID": SymbolicUnpickler._storage,
    "REDUCE": SymbolicUnpickler._call,
    "BUILD": SymbolicUnpickler._attributes,
}

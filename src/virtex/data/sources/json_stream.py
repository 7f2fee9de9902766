"""Large JSON files, read item by item, so that COCO's annotations are never in memory at once."""

import json
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from virtex.data.plain_text import CONVERT, undecodable, undecodable_place
from virtex.data.records import is_int64
from virtex.errors import UserError
from virtex.files import reading

_BLANK = " \t\r\n"
_AFTER_VALUE = frozenset(_BLANK + ",:]}")
_MOST_CHARACTERS = 1 << 23  # of one item, such as an outline of some thousand points


def list_items(path: Path, window: int = 1 << 20) -> Iterator[tuple[str, object]]:
    """Every item of every list in a JSON file's one object, as (key, item), in the file's order.

    Other members of the object are skipped, and no list may be given twice. `window` is the number
    of characters read at a time; the size of an item or other member is limited, and so is memory.

    Raises UserError, with the path and the place, if the file cannot be read or is malformed.
    """
    try:
        with reading(path), path.open(encoding="utf-8-sig") as file:
            yield from _members(_Scanner(file, window))
    except UnicodeDecodeError as error:
        where = undecodable_place(path)
        raise UserError(
            f"{path} is not UTF-8 text at {where}: {undecodable(error)}; {CONVERT}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not a well-formed JSON object: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: an item is nested too deeply for annotations") from error


def integer(path: Path, key: str, item: object, name: str) -> int:
    """The 64-bit integer `name` of an item of the file's list `key`; raises UserError."""
    value = item.get(name) if isinstance(item, dict) else None
    if not is_int64(value):
        raise invalid_item(path, key, item, f"'{name}', a whole number of 64 bits")
    return value


def text(path: Path, key: str, item: object, name: str) -> str:
    """The string `name` of an item of the file's list `key`; raises UserError."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, str):
        raise invalid_item(path, key, item, f"'{name}', a string")
    return value


def invalid_item(path: Path, key: str, item: object, needed: str) -> UserError:
    """The error of an item of the file's list `key`, which needs `needed`."""
    # An item may be large or deeply nested; reprlib shows a part of it.
    shown = reprlib.repr(item)
    return UserError(f"{path}: every item of '{key}' needs {needed}; one is {shown}")


def _members(scanner: "_Scanner") -> Iterator[tuple[str, object]]:
    scanner.expect("{")
    lists = set()
    for _ in scanner.elements("}"):
        key = scanner.value()
        if not isinstance(key, str):
            raise ValueError(f"a key was expected {scanner.place}")
        if key in lists:
            raise ValueError(f"the list {key[:50]!r} is given twice {scanner.place}")
        scanner.expect(":")
        if scanner.skip("["):
            lists.add(key)
            for _ in scanner.elements("]"):
                yield key, scanner.value()
        else:
            scanner.value()
    if scanner.peek():
        raise ValueError(f"the object is followed by more {scanner.place}")


class _Scanner:
    """A window over the text of a file that moves forward by one JSON value or character."""

    def __init__(self, file: TextIO, size: int) -> None:
        self._file = file
        self._size = size
        self._window = ""
        self._position = 0  # in the window
        self._passed = 0  # characters of the file before the window
        self._decode = json.JSONDecoder().raw_decode

    @property
    def place(self) -> str:
        return f"(character {self._passed + self._position})"

    def peek(self) -> str:
        """The next character that is not blank, or "" at the end of the file."""
        while True:
            while self._position < len(self._window):
                character = self._window[self._position]
                if character not in _BLANK:
                    return character
                self._position += 1
            if not self._read_more():
                return ""

    def skip(self, character: str) -> bool:
        """Whether `character` comes next; if so, move past it."""
        found = self.peek() == character
        self._position += found
        return found

    def expect(self, character: str) -> None:
        """Move past `character`; raises ValueError if something else comes next."""
        if not self.skip(character):
            raise ValueError(f"{character!r} was expected, not {self.peek()!r} {self.place}")

    def elements(self, end: str) -> Iterator[None]:
        """Stop before each element of a list or object, and after its `end`."""
        more = not self.skip(end)
        while more:
            yield
            more = self.skip(",")
            if not more:
                self.expect(end)

    def value(self) -> object:
        """The next value of any type; raises ValueError if there is none."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._window, self._position)
            except json.JSONDecodeError as error:
                place = self._passed + error.pos
                # The window may end within the value.
                if not self._read_more():
                    raise ValueError(f"{error.msg} (character {place})") from error
            else:
                # A number may continue after the window's end: `1.` of `1.5` decodes as 1.
                if self._window[end : end + 1] in _AFTER_VALUE or not self._read_more():
                    self._position = end
                    return value

    def _read_more(self) -> bool:
        """Move the window on; it doubles for a value that does not fit, so time stays linear."""
        rest = self._window[self._position :]
        if len(rest) > max(_MOST_CHARACTERS, self._size):
            raise ValueError(f"one value is longer than {_MOST_CHARACTERS} characters {self.place}")
        chunk = self._file.read(max(self._size, len(rest)))
        self._passed += self._position
        self._window = rest + chunk
        self._position = 0
        return bool(chunk)

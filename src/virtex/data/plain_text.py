"""Text from bytes: UTF-8, with or without a byte order mark, or an error that says what it is."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from virtex.errors import UserError

CONVERT = "convert it to UTF-8 first"


class NotTextError(ValueError):
    """Bytes that are no UTF-8; the message is the reason."""


def decoded(content: bytes) -> str:
    """The text; raises NotTextError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise NotTextError(undecodable(error, content)) from error
    if "\0" in text:
        raise NotTextError("it holds zero bytes, as UTF-16 and binary files do")
    return text


def undecodable(error: UnicodeDecodeError, content: bytes = b"") -> str:
    """The reason in the error, and the encoding where the first bytes of `content` tell it."""
    kind = " of UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    return f"{error.reason}, the byte {error.object[error.start]:#04x}{kind}"


def undecodable_place(path: Path) -> str:
    """Where a file that is not UTF-8 ceases to be so: `byte 1234, behind '"caption": "a caf'`."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                begin = position + len(chunk) - len(error.object)
                before = error.object[max(0, error.start - 40) : error.start]
                return f"byte {begin + error.start}, behind {before.decode(errors='ignore')!r}"
            position += len(chunk)
    return f"byte {position}, its end"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their ends, numbered from 1; raises UserError with the line."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = decoded(line) if number == 1 else _without_mark(line)
            except NotTextError as error:
                raise UserError(
                    f"{path}, line {number} is not UTF-8 text: {error}; {CONVERT}"
                ) from error
            yield number, text


def _without_mark(line: bytes) -> str:
    text = decoded(line)
    # A mark is one at the beginning of a file alone.
    return text if not line.startswith(b"\xef\xbb\xbf") else "\ufeff" + text

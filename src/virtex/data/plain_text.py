"""Decoding of UTF-8 text, with or without a byte order mark."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from virtex.errors import UserError

CONVERT = "convert it to UTF-8 first"


class NotTextError(ValueError):
    """Bytes that are not UTF-8 text; the message is the reason."""


def decoded(content: bytes, encoding: str = "utf-8-sig") -> str:
    """Decode text; raises NotTextError."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotTextError(undecodable(error, content)) from error
    if "\0" in text:
        raise NotTextError("it holds zero bytes, as UTF-16 and binary files do")
    return text


def undecodable(error: UnicodeDecodeError, content: bytes = b"") -> str:
    """The reason of the error, and the encoding if the first bytes of `content` reveal it."""
    kind = " of UTF-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
    return f"{error.reason}, the byte {error.object[error.start]:#04x}{kind}"


def undecodable_place(path: Path) -> str:
    """The first place in a file that is not UTF-8: `byte 1234, after '"caption": "a caf'`."""
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                begin = position + len(chunk) - len(error.object)
                before = error.object[max(0, error.start - 40) : error.start]
                return f"byte {begin + error.start}, after {before.decode(errors='ignore')!r}"
            position += len(chunk)
    return f"byte {position}, its end"


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file with their line ends, numbered from 1; raises UserError."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                # Only the first line can begin with a byte order mark.
                text = decoded(line, "utf-8-sig" if number == 1 else "utf-8")
            except NotTextError as error:
                raise UserError(
                    f"{path}, line {number} is not UTF-8 text: {error}; {CONVERT}"
                ) from error
            yield number, text

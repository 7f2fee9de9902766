"""Decoding of text: UTF-8, with or without a byte order mark, or another encoding that is named."""

import codecs
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from virtex.errors import UserError

CONVERT = "convert it to UTF-8 first"
ENCODING_REMEDY = (
    f"{CONVERT}, or give its encoding, such as cp1252 or utf-16, as DATA.ENCODING (--encoding)"
)
"""What to do about text of another encoding, where that can be given."""
UTF_8 = "utf-8"
_CHUNK = 1 << 16
_INVISIBLE = ("Cc", "Cf", "Zl", "Zp", "Zs")  # general categories of Unicode
_ZEROS = "it holds zero bytes, as UTF-16 and binary files do"


class NotTextError(ValueError):
    """Bytes that are not text of the expected encoding; the message is the reason."""


def has_text(text: str) -> bool:
    """Whether any character can be seen, or is not known; blanks, zero-width marks and control
    characters cannot."""
    return any(unicodedata.category(sign) not in _INVISIBLE for sign in text)


def encoding_name(encoding: str) -> str:
    """The name of an encoding in messages."""
    return "UTF-8" if codecs.lookup(encoding).name == UTF_8 else encoding


def without_mark(encoding: str) -> str:
    """The encoding to decode a whole text with, so that no byte order mark is part of it."""
    return "utf-8-sig" if codecs.lookup(encoding).name == UTF_8 else encoding


def decoded(content: bytes, encoding: str = "utf-8-sig") -> str:
    """Decode text; raises NotTextError."""
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise NotTextError(undecodable(error, content)) from error
    except UnicodeError as error:  # of encodings with a state, such as UTF-16 without its mark
        raise NotTextError(str(error)) from error
    return _without_zeros(text)


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


def text_lines(
    path: Path, encoding: str = UTF_8, remedy: str = CONVERT
) -> Iterator[tuple[int, str]]:
    """The lines of a file with their line ends, numbered from 1.

    Raises UserError, with the line and the `remedy`, for bytes that are not text of the encoding.
    """
    lines: Iterator[bytes | str] = (
        _byte_lines(path) if _ends_lines_as_ascii(encoding) else _wide_lines(path, encoding)
    )
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if isinstance(line, str):
                yield number, _without_zeros(line)
            else:
                # Only the first line can begin with a byte order mark.
                yield number, decoded(line, without_mark(encoding) if number == 1 else encoding)
    except _UndecodableError as error:
        raise UserError(_not_text(path, number + 1, encoding, error, remedy)) from error
    except NotTextError as error:
        raise UserError(_not_text(path, number, encoding, error, remedy)) from error


class _UndecodableError(NotTextError):
    """As its base; it is found before the line that holds it is complete."""


def _not_text(path: Path, number: int, encoding: str, error: NotTextError, remedy: str) -> str:
    return f"{path}, line {number} is not {encoding_name(encoding)} text: {error}; {remedy}"


def _ends_lines_as_ascii(encoding: str) -> bool:
    """Whether the byte of a line feed ends a line; it is a part of other characters in UTF-16."""
    return "\n".encode(encoding) == b"\n"


def _byte_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _wide_lines(path: Path, encoding: str) -> Iterator[str]:
    decoder, pending = codecs.getincrementaldecoder(encoding)(), ""
    with path.open("rb") as file:
        more = True
        while more:
            state, chunk = decoder.getstate(), file.read(_CHUNK)
            more = bool(chunk)
            try:
                text = decoder.decode(chunk, final=not more)
            except UnicodeError as error:
                reason = undecodable(error) if isinstance(error, UnicodeDecodeError) else str(error)
                good = pending + _decodable(encoding, state, chunk)
                yield from (f"{line}\n" for line in good.split("\n")[:-1])
                raise _UndecodableError(reason) from error
            *lines, pending = (pending + text).split("\n")
            yield from (f"{line}\n" for line in lines)
    if pending:
        yield pending


def _decodable(encoding: str, state: tuple[bytes, int], chunk: bytes) -> str:
    """The characters before the one that cannot be decoded, from a decoder's state on."""
    decoder = codecs.getincrementaldecoder(encoding)()
    decoder.setstate(state)
    good = ""
    with suppress(UnicodeError):
        for place in range(len(chunk)):
            good += decoder.decode(chunk[place : place + 1])
    return good


def _without_zeros(text: str) -> str:
    if "\0" in text:
        raise NotTextError(_ZEROS)
    return text

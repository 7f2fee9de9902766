"""Reading tar files as data: plain files with safe names, or an error; nothing is extracted.

With a reader of our own, because archives can be hostile: whatever two readers could interpret
differently (links, sparse files, a second size in an extended header) is refused.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, NoReturn

from virtex.data.shards.store import Store
from virtex.errors import UserError

BLOCK = 512
_CHUNK = 8 << 20
_MAX_BYTES = 1 << 30  # of a member: more is not an image
_MAX_HEADER_BYTES = 1 << 20
_END = bytes(BLOCK)
_CHECKSUM = slice(148, 156)
_FILE, _DIRECTORY, _LONG_NAME, _EXTENDED, _GLOBAL = (b"0", b"\0"), b"5", b"L", b"x", b"g"
_REFUSED_KEYS = (b"size", b"linkpath", b"hdrcharset", b"GNU.sparse.")
_REMEDY = "make the shard again, of plain files with relative names"


class TarMember(NamedTuple):
    """A file in a tar file: its name, the offset of its content, and the content."""

    name: str
    offset: int
    content: bytes


def ignore_bytes(length: int) -> None:
    """Do nothing; for a `TarStream`."""


class TarStream:
    """The bytes of a tar file in order; `sha256` is that of all bytes read so far.

    `on_bytes` is called with the length of each part that is read.
    """

    def __init__(
        self, store: Store, name: str, on_bytes: Callable[[int], None] = ignore_bytes
    ) -> None:
        self.address = f"{store.root}/{name}"
        self.size = store.size(name)
        self.position = 0
        self.sha256 = hashlib.sha256()
        self._store, self._name, self._on_bytes = store, name, on_bytes
        self._buffer, self._start = b"", 0

    def take(self, length: int) -> bytes:
        """The next bytes; raises UserError if the file ends before."""
        if self.position + length > self.size:
            self.refuse(f"the file ends at byte {self.size}, inside of a member: it is truncated")
        while len(self._buffer) - self._start < length:
            rest = self._buffer[self._start :]
            chunk = self._store.read(self._name, self.position + len(rest), _CHUNK)
            if not chunk:
                self.refuse("the file became shorter while it was read")
            self.sha256.update(chunk)
            self._on_bytes(len(chunk))
            self._buffer, self._start = rest + chunk, 0
        taken = self._buffer[self._start : self._start + length]
        self._start += length
        self.position += length
        return taken

    def refuse(self, reason: str, member: str = "") -> NoReturn:
        """Raise a UserError for the file, or for a member of it."""
        raise UserError(f"{self.address}{': ' if member else ''}{member}: {reason}; {_REMEDY}")


def tar_members(stream: TarStream) -> Iterator[TarMember]:
    """The files in a tar file, in their order; directories are skipped.

    Raises UserError, with the shard and the member, for other members, for names that lead out of
    a directory, and if the file is damaged or truncated.
    """
    long_name = None
    while (header := stream.take(BLOCK)) != _END:
        name, size, kind = _fields(stream, header, long_name)
        if kind in (_EXTENDED, _GLOBAL, _LONG_NAME):
            if size > _MAX_HEADER_BYTES:
                stream.refuse(f"a header of {size} bytes", name)
            content = _content(stream, size)
            path = content.rstrip(b"\0") if kind == _LONG_NAME else _path(stream, content, name)
            long_name = long_name if path is None else path
            continue
        long_name = None
        if kind == _DIRECTORY:
            _content(stream, size)
            continue
        if kind not in _FILE:
            stream.refuse("it is a link or a special file, which is not read", name)
        if size > min(_MAX_BYTES, stream.size - stream.position):
            reason = "more than the rest of the file: it is truncated or damaged"
            stream.refuse(f"its header gives {size} bytes, {reason}", name)
        offset = stream.position
        yield TarMember(name, offset, _content(stream, size))
    while stream.position < stream.size:
        if any(stream.take(min(_CHUNK, stream.size - stream.position))):
            stream.refuse("there is data after the end of the archive")


def header_name(header: bytes) -> str:
    """The name in a member's header, with replacement characters if it is not UTF-8."""
    return header[:100].partition(b"\0")[0].decode(errors="replace")


def _content(stream: TarStream, size: int) -> bytes:
    content = stream.take(size)
    stream.take(-size % BLOCK)
    return content


def _fields(stream: TarStream, header: bytes, long_name: bytes | None) -> tuple[str, int, bytes]:
    """The name, the size and the kind of a member."""
    summed = header[: _CHECKSUM.start] + b" " * 8 + header[_CHECKSUM.stop :]
    if _octal(header[_CHECKSUM]) != sum(summed):
        start = stream.position - BLOCK
        stream.refuse(f"the header at byte {start} is damaged, or the file is not a tar file")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    shown = _safe_name(stream, name if long_name is None else long_name)
    size = _octal(header[124:136])
    if size is None:
        stream.refuse("its size is not an octal number", shown)
    return shown, size, header[156:157]


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _safe_name(stream: TarStream, name: bytes) -> str:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        stream.refuse("its name is not UTF-8", repr(name[:200]))
    while text.startswith("./"):
        text = text[2:]
    parts = text.split("/")
    if text.startswith("/") or ".." in parts or not text.isprintable() or "\\" in text:
        stream.refuse("its name leads out of a directory or has odd characters", repr(text[:200]))
    return text


def _path(stream: TarStream, content: bytes, member: str) -> bytes | None:
    """The name that an extended header gives to the next member, or None."""
    path = None
    while content:
        length, _, _ = content.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = content[len(length) + 1 : end].partition(b"=")
        if not (equals and len(length) < end <= len(content) and value.endswith(b"\n")):
            stream.refuse("its extended header is malformed", member)
        if key.startswith(_REFUSED_KEYS):
            stream.refuse(f"its extended header sets {key.decode(errors='replace')}", member)
        if key == b"path":
            path = value[:-1]
        content = content[end:]
    return path

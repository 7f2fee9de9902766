"""The index of a shard: where in the tar file each sample's picture and text lie, and checksums.

A file is a line of JSON (`format`, `samples`, `tar_bytes`, `tar_sha256`, `ids`, `left_out`,
`labels`) and then a row of `ROW` a sample, in the order of the tar file.
"""

import json
import zlib
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from virtex.data import sample_text
from virtex.data.sample_text import Kind, SampleText, hashed_id, key_id
from virtex.data.store import Store
from virtex.data.tar_members import TarMember, TarStream, tar_members
from virtex.errors import UserError

FORMAT = "virtex index 1"
SUFFIX = ".index"
ROW = np.dtype(
    [
        ("image_id", "<i8"),
        ("image_offset", "<i8"),
        ("image_bytes", "<u4"),
        ("image_crc32", "<u4"),
        ("text_offset", "<i8"),
        ("text_bytes", "<u4"),
        ("text_crc32", "<u4"),
        ("text_kind", "u1"),  # of KINDS
    ]
)
KINDS: tuple[Kind, ...] = ("json", "txt")
PICTURES = frozenset(
    ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "img")
)
Ids = Literal["given", "keys", "names"]
"""Where image ids are from: told in the text, the keys as numbers, hashes of the keys."""

_MOST_BYTES_OF_HEADER = 1 << 20
_NAMED = 5


@dataclass(frozen=True)
class TarIndex:
    """The samples of one shard; `left_out` says, a line each, what the tar file holds besides."""

    rows: npt.NDArray[np.void]
    tar_bytes: int
    tar_sha256: str
    ids: Ids
    labels: Literal["captions", "categories"] = "captions"
    left_out: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """The content of the index file; equal for equal indexes."""
        header = {
            "format": FORMAT,
            "samples": len(self.rows),
            "tar_bytes": self.tar_bytes,
            "tar_sha256": self.tar_sha256,
            "ids": self.ids,
            "labels": self.labels,
            "left_out": self.left_out,
        }
        return json.dumps(header).encode() + b"\n" + self.rows.tobytes()


def read_index(content: bytes, address: str) -> TarIndex:
    """The index in a file's bytes; raises UserError, with its `address`, where it is none."""
    end = content.find(b"\n", 0, _MOST_BYTES_OF_HEADER)
    try:
        header = json.loads(content[: max(end, 0)])
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, expected {FORMAT!r}")
        index = TarIndex(
            rows=np.frombuffer(content, ROW, offset=end + 1),
            tar_bytes=int(header["tar_bytes"]),
            tar_sha256=str(header["tar_sha256"]),
            ids=header["ids"],
            labels=header["labels"],
            left_out=tuple(map(str, header["left_out"])),
        )
        if len(index.rows) != header["samples"]:
            raise ValueError(f"it holds {len(index.rows)} samples and says {header['samples']}")
        for part in ("image", "text"):
            offsets = index.rows[f"{part}_offset"]
            if np.any(offsets < 0) or np.any(
                offsets > index.tar_bytes - index.rows[f"{part}_bytes"].astype(np.int64)
            ):
                raise ValueError("it points beyond the end of the tar file")
        if np.any(index.rows["text_kind"] >= len(KINDS)):
            raise ValueError("it holds an unknown kind of text")
    except (ValueError, ArithmeticError, TypeError, LookupError, RecursionError) as error:
        raise UserError(
            f"{address} is no index of a shard: {error}; remove it, and the shards.json beside it,"
            " to have it made again"
        ) from error
    return index


@dataclass
class _Found:
    """The members of one key so far."""

    image: tuple[int, int, int] | None = None  # offset, bytes, crc32
    text: tuple[int, int, int, int] | None = None  # and kind
    said: SampleText = field(default_factory=SampleText)


def index_tar(store: Store, name: str) -> TarIndex:
    """The index of a tar file, read from its beginning to its end.

    A sample is a picture and a text of one key (the path up to the first dot of the file's name);
    JSON counts more than plain text, and other members are passed over. Raises UserError as
    `tar_members` does, and where a key has two pictures.
    """
    stream = TarStream(store, name)
    samples: dict[str, _Found] = {}
    for member in tar_members(stream):
        key, extension = _key(member.name)
        if extension in PICTURES:
            found = samples.setdefault(key, _Found())
            if found.image is not None:
                stream.refuse(f"there are two pictures of the key {key}", member.name)
            found.image = _place(member)
        elif extension in KINDS:
            _add_text(samples.setdefault(key, _Found()), member, extension)
    return _index(stream, samples)


def _key(name: str) -> tuple[str, str]:
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, extension.lower()


def _place(member: TarMember) -> tuple[int, int, int]:
    return member.offset, len(member.content), zlib.crc32(member.content)


def _add_text(found: _Found, member: TarMember, kind: Kind) -> None:
    said = sample_text.parse(member.content, kind)
    if said.says_something and (found.text is None or kind == "json"):
        found.text, found.said = (*_place(member), KINDS.index(kind)), said


def _index(stream: TarStream, samples: dict[str, _Found]) -> TarIndex:
    whole = {key: found for key, found in samples.items() if found.image and found.text}
    ids, source = _ids(whole)
    rows = [
        (image_id, *(found.image or ()), *(found.text or ()))
        for image_id, found in zip(ids, whole.values(), strict=True)
    ]
    lacking = {
        "pictures have no caption": [key for key, found in samples.items() if not found.text],
        "captions have no picture": [key for key, found in samples.items() if not found.image],
    }
    return TarIndex(
        rows=np.array(rows, ROW),
        tar_bytes=stream.size,
        tar_sha256=stream.sha256.hexdigest(),
        ids=source,
        labels=(
            "categories"
            if whole and all(found.said.categories is not None for found in whole.values())
            else "captions"
        ),
        left_out=tuple(left_out(what, keys) for what, keys in lacking.items() if keys),
    )


def left_out(what: str, keys: list[str]) -> str:
    """A count and the first keys: `3 pictures have no caption (keys 0007, 0009, 0031)`."""
    named = ", ".join(keys[:_NAMED])
    return f"{len(keys)} {what} (keys {named}{', …' if len(keys) > _NAMED else ''})"


def _ids(samples: dict[str, _Found]) -> tuple[list[int], Ids]:
    given = [found.said.image_id for found in samples.values()]
    if all(image_id is not None for image_id in given) and len(set(given)) == len(given):
        return [image_id for image_id in given if image_id is not None], "given"
    numbers = [key_id(key) for key in samples]
    if all(number is not None for number in numbers) and len(set(numbers)) == len(numbers):
        return [number for number in numbers if number is not None], "keys"
    return [hashed_id(key) for key in samples], "names"

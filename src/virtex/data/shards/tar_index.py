"""The index of a shard: where in the tar file each sample's image and text lie, and checksums.

A file is a line of JSON (`format`, `samples`, `tar_bytes`, `tar_sha256`, `ids`, `left_out`,
`labels`, perhaps `report`) and then a row of `ROW` a sample, in the order of the tar file.
"""

import json
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
import numpy.typing as npt

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.data.json_files import Count, JsonFile, parse_json
from virtex.data.plain_text import NotTextError
from virtex.data.records import hashed_id
from virtex.data.shards import sample_text
from virtex.data.shards.sample_text import Kind, MalformedError, SampleText, key_id
from virtex.data.shards.store import Store
from virtex.data.shards.tar_members import TarMember, TarStream, tar_members
from virtex.errors import UserError, first_few

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
IMAGES = IMAGE_EXTENSIONS | {"img"}  # which `virtex pack` gives to what has no extension of its own
TEXTS: dict[str, Kind] = {"json": "json", "txt": "txt"}
Labels = Literal["captions", "categories"]
Ids = Literal["given", "keys", "names"]
"""Where image ids are from: those in the text, the keys as numbers, hashes of the keys."""

_MOST_BYTES_OF_HEADER = 1 << 20
_SHOWN, _MOST_KINDS = 12, 200


class _Header(JsonFile):
    """The first line of an index."""

    format: Literal["virtex index 1"]
    samples: Count
    tar_bytes: Count
    tar_sha256: str
    ids: Ids
    labels: Labels
    left_out: tuple[str, ...]
    report: tuple[str, ...] = ()


@dataclass(frozen=True)
class TarIndex:
    """The samples of one shard; `left_out` says, a line each, what of the tar file cannot be
    used, and `report` what else a person may want to know."""

    rows: npt.NDArray[np.void]
    tar_bytes: int
    tar_sha256: str
    ids: Ids
    labels: Labels = "captions"
    left_out: tuple[str, ...] = ()
    report: tuple[str, ...] = ()

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
        if self.report:
            header["report"] = self.report
        return json.dumps(header).encode() + b"\n" + self.rows.tobytes()


def read_index(content: bytes, address: str) -> TarIndex:
    """The index in a file's bytes; raises UserError, with its `address`, where it is none."""
    wrong = f"{address} is not the index of a shard"
    remedy = "remove it, and the shards.json beside it, to have it made again"
    end = content.find(b"\n", 0, _MOST_BYTES_OF_HEADER)
    header = parse_json(_Header, content[: max(end, 0)], wrong, remedy)
    try:
        index = TarIndex(
            rows=np.frombuffer(content, ROW, offset=end + 1),
            tar_bytes=header.tar_bytes,
            tar_sha256=header.tar_sha256,
            ids=header.ids,
            labels=header.labels,
            left_out=header.left_out,
            report=header.report,
        )
        if len(index.rows) != header.samples:
            raise ValueError(f"it holds {len(index.rows)} samples, not {header.samples}")
        for part in ("image", "text"):
            offsets = index.rows[f"{part}_offset"]
            if np.any(offsets < 0) or np.any(
                offsets > index.tar_bytes - index.rows[f"{part}_bytes"].astype(np.int64)
            ):
                raise ValueError("it points beyond the end of the tar file")
        if np.any(index.rows["text_kind"] >= len(KINDS)):
            raise ValueError("it holds an unknown kind of text")
    except ValueError as error:
        raise UserError(f"{wrong}: {error}; {remedy}") from error
    return index


@dataclass
class _Found:
    """The members of one key so far."""

    start: int  # of the first member
    image: tuple[int, int, int] | None = None  # offset, bytes, crc32
    text: tuple[int, int, int, int] | None = None  # and kind
    said: SampleText = field(default_factory=SampleText)
    kinds: set[Kind] = field(default_factory=set)
    is_part_of: str = ""  # the key up to the first dot, where this one is longer


@dataclass
class _Tar:
    """What a tar file was found to hold."""

    samples: dict[str, _Found] = field(default_factory=dict)
    dotted: dict[str, _Found] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    extensions: Counter[str] = field(default_factory=Counter)
    json_keys: Counter[str] = field(default_factory=Counter)


def index_tar(store: Store, name: str) -> TarIndex:
    """The index of a tar file, read from its beginning to its end.

    A sample is an image and a text of one key; JSON counts more than plain text, and members of
    other kinds and hidden ones are passed over. A key is the path up to the first dot of the file's
    name. Where that leaves no known extension it is the path up to the last dot, unless there is an
    image of the shorter key, whose part the member is then.

    Raises UserError as `tar_members` does, and where a key has two images, or two texts of a kind.
    """
    stream, tar = TarStream(store, name), _Tar()
    for member in tar_members(stream):
        path = PurePosixPath(member.name)
        if not path.name or path.name.startswith("."):
            continue
        stem, _, extension = path.name.partition(".")
        last = extension.lower().rpartition(".")[2]
        short = str(path.with_name(stem))
        _count(tar.extensions, extension.lower() if len(extension) < 20 else last)
        if last not in IMAGES and last not in TEXTS:
            continue
        if last == extension.lower():
            found = tar.samples.setdefault(short, _Found(member.offset))
        else:
            key = str(path.with_suffix(""))
            found = tar.dotted.setdefault(key, _Found(member.offset, is_part_of=short))
        _add(stream, tar, found, member, last)
    return _index(stream, tar)


def _count(counts: Counter[str], what: str) -> None:
    if what in counts or len(counts) < _MOST_KINDS:
        counts[what] += 1


def _add(stream: TarStream, tar: _Tar, found: _Found, member: TarMember, extension: str) -> None:
    if extension in IMAGES:
        if found.image is not None:
            stream.refuse("there are two images of its key", member.name)
        found.image = _place(member)
    else:
        kind = TEXTS[extension]
        if kind in found.kinds:
            stream.refuse(f"there are two {kind} texts of its key", member.name)
        found.kinds.add(kind)
        _add_text(tar, found, member, kind)


def _place(member: TarMember) -> tuple[int, int, int]:
    return member.offset, len(member.content), zlib.crc32(member.content)


def _add_text(tar: _Tar, found: _Found, member: TarMember, kind: Kind) -> None:
    try:
        said = sample_text.parse(member.content, kind)
    except NotTextError as error:
        tar.problems["texts are not UTF-8, so convert them first"].append(f"{member.name}: {error}")
        return
    except MalformedError as error:
        tar.problems["texts are not well-formed JSON"].append(f"{member.name}: {error}")
        return
    for key in said.keys:
        _count(tar.json_keys, key)
    if said.unusable:
        what = "texts have captions that are blank, null or no text"
        tar.problems[what].append(f"{member.name}: {said.unusable}")
    if said.says_something and (found.text is None or kind == "json"):
        found.text, found.said = (*_place(member), KINDS.index(kind)), said


def _index(stream: TarStream, tar: _Tar) -> TarIndex:
    parts = _parts_of_others(tar)
    tar.samples |= {key: found for key, found in tar.dotted.items() if key not in parts}
    samples = dict(sorted(tar.samples.items(), key=lambda item: item[1].start))
    whole = {key: found for key, found in samples.items() if found.image and found.text}
    ids, source = _ids(whole)
    rows = [
        (image_id, *(found.image or ()), *(found.text or ()))
        for image_id, found in zip(ids, whole.values(), strict=True)
    ]
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
        left_out=_lacking(tar) + (() if whole else _seen(tar)),
        report=_parts(tar, parts),
    )


def _lacking(tar: _Tar) -> tuple[str, ...]:
    samples = tar.samples.items()
    lacking = {
        "images have no caption": [key for key, found in samples if not found.text],
        "captions have no image": [key for key, found in samples if not found.image],
    }
    return tuple(left_out(what, keys) for what, keys in lacking.items() if keys) + tuple(
        left_out(what, members, "files") for what, members in tar.problems.items()
    )


def _parts_of_others(tar: _Tar) -> set[str]:
    """The longer keys whose shorter one has an image."""
    images = {key for key, found in tar.samples.items() if found.image}
    return {key for key, found in tar.dotted.items() if found.is_part_of in images}


def _parts(tar: _Tar, keys: set[str]) -> tuple[str, ...]:
    """A line on the images that are passed over as parts of other samples."""
    images = [key for key, found in tar.dotted.items() if key in keys and found.image]
    what = "images are parts of the samples whose names go to the first dot"
    return (left_out(what, images),) if images else ()


def _seen(tar: _Tar) -> tuple[str, ...]:
    """What there is in place of samples: `it holds 4 *.input.jpg, 4 *.output.txt`."""
    lines = []
    if tar.extensions:
        kinds = [f"{count} *.{kind}" for kind, count in tar.extensions.most_common(_SHOWN)]
        lines.append(f"it holds {', '.join(kinds)}")
    if tar.json_keys:
        keys = [f"{key[:50]!r} ({count})" for key, count in tar.json_keys.most_common(_SHOWN)]
        lines.append(f"its JSON has the keys {', '.join(keys)}")
    return tuple(lines)


def left_out(what: str, items: list[str], kind: str = "keys") -> str:
    """A count and the first keys: `3 images have no caption (keys 0007, 0009, 0031)`."""
    return f"{len(items)} {what} ({kind} {first_few(items)})"


def _ids(samples: dict[str, _Found]) -> tuple[list[int], Ids]:
    given = [found.said.image_id for found in samples.values()]
    if all(image_id is not None for image_id in given) and len(set(given)) == len(given):
        return [image_id for image_id in given if image_id is not None], "given"
    numbers = [key_id(key) for key in samples]
    if all(number is not None for number in numbers) and len(set(numbers)) == len(numbers):
        return [number for number in numbers if number is not None], "keys"
    return [hashed_id(key) for key in samples], "names"

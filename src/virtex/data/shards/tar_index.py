"""The index of a shard: offsets, sizes and checksums of each sample's image and text.

A file is a line of JSON (`format`, `samples`, `tar_bytes`, `tar_sha256`, `ids`, `left_out`,
`labels`, perhaps `report`) and then a row of `ROW` a sample, in the order of the tar file, and a
row of `FURTHER_IMAGE` for each image of a text after its first.
"""

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.data.json_files import Count, JsonFile, parse_json
from virtex.data.plain_text import NotTextError, encoding_name
from virtex.data.records import hashed_id
from virtex.data.shards import sample_text
from virtex.data.shards.sample_text import (
    DEFAULT_FORMAT,
    Kind,
    MalformedError,
    SampleText,
    TextFormat,
    key_id,
)
from virtex.data.shards.store import Store
from virtex.data.shards.tar_members import TarMember, TarStream, ignore_bytes, tar_members
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
FURTHER_IMAGE = np.dtype(
    [
        ("sample", "<i8"),  # its row
        ("image_offset", "<i8"),
        ("image_bytes", "<u4"),
        ("image_crc32", "<u4"),
    ]
)
KINDS: tuple[Kind, ...] = ("json", "txt")
IMAGES = IMAGE_EXTENSIONS | {"img"}  # which `virtex pack` gives to what has no extension of its own
TEXTS: dict[str, Kind] = {"json": "json", "txt": "txt"}
Labels = Literal["captions", "categories"]
Ids = Literal["given", "keys", "names"]
"""The source of the image ids: the texts, the keys as numbers, or hashes of the keys."""

_MAX_HEADER_BYTES = 1 << 20
_MAX_KINDS, _MAX_LISTED = 200, 12
_PARTS = "images are parts of the samples whose names go to the first dot"


class _Header(JsonFile):
    """The first line of an index."""

    format: Literal["virtex index 1"]
    samples: Count
    tar_bytes: Count
    tar_sha256: str
    ids: Ids
    labels: Labels
    excluded: Annotated[tuple[str, ...], Field(alias="left_out")]
    report: tuple[str, ...] = ()


@dataclass(frozen=True)
class TarIndex:
    """The samples of one shard, and their images after the first, in order of the samples.

    `excluded` describes, a line each, what of the tar file cannot be used; `report` what else a
    person may want to know.
    """

    rows: npt.NDArray[np.void]
    tar_bytes: int
    tar_sha256: str
    ids: Ids
    labels: Labels = "captions"
    excluded: tuple[str, ...] = ()
    report: tuple[str, ...] = ()
    further: npt.NDArray[np.void] = field(default_factory=lambda: np.empty(0, FURTHER_IMAGE))

    def __len__(self) -> int:
        """The number of rows of both kinds."""
        return len(self.rows) + len(self.further)

    def further_images(self, sample: int) -> list[tuple[int, int, int]]:
        """The offset, bytes and CRC-32 of each image of a sample after the first."""
        start, stop = np.searchsorted(self.further["sample"], [sample, sample + 1])
        return [tuple(row.item()[1:]) for row in self.further[start:stop]]

    def to_bytes(self) -> bytes:
        """The content of the index file; equal for equal indexes."""
        header = {
            "format": FORMAT,
            "samples": len(self.rows),
            "tar_bytes": self.tar_bytes,
            "tar_sha256": self.tar_sha256,
            "ids": self.ids,
            "labels": self.labels,
            "left_out": self.excluded,
        }
        if self.report:
            header["report"] = self.report
        return b"".join(
            (json.dumps(header).encode(), b"\n", self.rows.tobytes(), self.further.tobytes())
        )


def read_index(content: bytes, address: str) -> TarIndex:
    """The index in a file's bytes; raises UserError, with its `address`, if it is not valid."""
    wrong = f"{address} is not the index of a shard"
    remedy = "remove it, and the shards.json beside it, to have it made again"
    end = content.find(b"\n", 0, _MAX_HEADER_BYTES)
    header = parse_json(_Header, content[: max(end, 0)], wrong, remedy)
    try:
        start, size = end + 1, header.samples * ROW.itemsize
        rows = np.frombuffer(content[start : start + size], ROW)
        further = np.frombuffer(content[start + size :], FURTHER_IMAGE)
        _check_rows(rows, further, header)
    except ValueError as error:
        raise UserError(f"{wrong}: {error}; {remedy}") from error
    return TarIndex(rows, **header.model_dump(exclude={"format", "samples"}), further=further)


def _check_rows(rows: npt.NDArray[np.void], further: npt.NDArray[np.void], header: _Header) -> None:
    if len(rows) != header.samples:
        raise ValueError(f"it holds {len(rows)} samples, not {header.samples}")
    samples = further["sample"]
    if np.any(samples < 0) or np.any(samples >= len(rows)) or np.any(np.diff(samples) < 0):
        raise ValueError("it holds images of no sample")
    for part, of_part in (("image", rows), ("text", rows), ("image", further)):
        offsets = of_part[f"{part}_offset"]
        last = header.tar_bytes - of_part[f"{part}_bytes"].astype(np.int64)
        if np.any(offsets < 0) or np.any(offsets > last):
            raise ValueError("it points beyond the end of the tar file")
    if np.any(rows["text_kind"] >= len(KINDS)):
        raise ValueError("it holds an unknown kind of text")


def index_tar(
    store: Store,
    name: str,
    form: TextFormat = DEFAULT_FORMAT,
    on_bytes: Callable[[int], None] = ignore_bytes,
) -> TarIndex:
    """The index of a tar file, read from its beginning to its end.

    A sample is an image and a text of one key; JSON is preferred to plain text, and other and
    hidden members are ignored. A key is the path up to the first dot of the file's name. If that
    leaves no known extension it is the path up to the last dot, unless there is an image of the
    shorter key: then the member is a part of that sample.

    Raises UserError as `tar_members` does, and if a key has two images, or two texts of a kind.
    """
    stream = TarStream(store, name, on_bytes)
    contents = _TarContents(stream, form)
    for member in tar_members(stream):
        contents.add(member)
    return contents.index()


_Location = tuple[int, int, int]
"""The offset, the bytes and the CRC-32 of a member."""


@dataclass
class _Sample:
    """The members of one key so far."""

    start: int  # of the first member
    short_key: str  # the path up to the first dot
    image: _Location | None = None
    text: tuple[int, int, int, int] | None = None  # the same, and the kind
    parsed: SampleText = field(default_factory=SampleText)
    kinds: set[Kind] = field(default_factory=set)


class _TarContents:
    """What was found in a tar file so far."""

    def __init__(self, stream: TarStream, form: TextFormat) -> None:
        self._stream, self._form = stream, form
        self._samples: dict[str, _Sample] = {}
        self._long_keys: dict[str, _Sample] = {}
        self._problems: dict[str, list[str]] = defaultdict(list)
        self._extensions: Counter[str] = Counter()
        self._json_keys: Counter[str] = Counter()

    def add(self, member: TarMember) -> None:
        path = PurePosixPath(member.name)
        if not path.name or path.name.startswith("."):
            return
        stem, _, extension = path.name.partition(".")
        extension = extension.lower()
        last = extension.rpartition(".")[2]
        _count(self._extensions, extension if len(extension) < 20 else last)
        if last not in IMAGES and last not in TEXTS:
            return
        short_key = str(path.with_name(stem))
        new = _Sample(member.offset, short_key)
        if last == extension:
            sample = self._samples.setdefault(short_key, new)
        else:
            sample = self._long_keys.setdefault(str(path.with_suffix("")), new)
        if last in IMAGES:
            self._add_image(sample, member)
        else:
            self._add_text(sample, member, TEXTS[last])

    def _add_image(self, sample: _Sample, member: TarMember) -> None:
        if sample.image is not None:
            self._stream.refuse("there are two images of its key", member.name)
        sample.image = _location(member)

    def _add_text(self, sample: _Sample, member: TarMember, kind: Kind) -> None:
        if kind in sample.kinds:
            self._stream.refuse(f"there are two {kind} texts of its key", member.name)
        sample.kinds.add(kind)
        try:
            parsed = sample_text.parse(member.content, kind, self._form)
        except NotTextError as error:
            name = encoding_name(self._form.encoding)
            what = f"texts are not {name}, so convert them first, or set DATA.ENCODING for .txt"
            self._problems[what].append(f"{member.name}: {error}")
            return
        except MalformedError as error:
            self._problems["texts are not well-formed JSON"].append(f"{member.name}: {error}")
            return
        for key in parsed.keys:
            _count(self._json_keys, key)
        if parsed.unusable:
            what = "texts have captions that are blank, null or no text"
            self._problems[what].append(f"{member.name}: {parsed.unusable}")
        if parsed.has_labels and (sample.text is None or kind == "json"):
            sample.text, sample.parsed = (*_location(member), KINDS.index(kind)), parsed

    def index(self) -> TarIndex:
        """The index of the whole tar file."""
        with_image = {key for key, sample in self._samples.items() if sample.image}
        parts = {
            key: sample for key, sample in self._long_keys.items() if sample.short_key in with_image
        }
        samples = self._samples | {k: s for k, s in self._long_keys.items() if k not in parts}
        complete = {
            key: sample
            for key, sample in sorted(samples.items(), key=lambda item: item[1].start)
            if sample.image and sample.text
        }
        further = self._further_images(complete)
        ids, source = _image_ids(complete)
        rows = [
            (image_id, *(sample.image or ()), *(sample.text or ()))
            for image_id, sample in zip(ids, complete.values(), strict=True)
        ]
        rows_of_further = [
            (number, *image)
            for number, key in enumerate(complete)
            for image in further[key].values()
        ]
        used = {name for images in further.values() for name in images}
        has_categories = [sample.parsed.categories is not None for sample in complete.values()]
        return TarIndex(
            rows=np.array(rows, ROW),
            tar_bytes=self._stream.size,
            tar_sha256=self._stream.sha256.hexdigest(),
            ids=source,
            labels="categories" if complete and all(has_categories) else "captions",
            excluded=self._excluded(samples) + (() if complete else self._kinds()),
            report=_summaries(
                {_PARTS: [key for key, part in parts.items() if part.image and key not in used]}
            ),
            further=np.array(rows_of_further, FURTHER_IMAGE),
        )

    def _further_images(self, samples: dict[str, _Sample]) -> dict[str, dict[str, _Location]]:
        """The images KEY.1, KEY.2, … by name, of each text that says how many images it has.

        Samples that lack some of them are removed and noted as a problem.
        """
        found: dict[str, dict[str, _Location]] = {}
        for key, sample in list(samples.items()):
            images = found[key] = {}
            for number in range(1, sample.parsed.images):
                part = self._long_keys.get(f"{key}.{number}")
                if part is None or part.image is None:
                    break
                images[f"{key}.{number}"] = part.image
            if 0 < len(images) < sample.parsed.images - 1:
                what = f"texts of several images lack the image {len(images) + 1}"
                self._problems[what].append(f"{key}.json")
                del samples[key], found[key]
        return found

    def _excluded(self, samples: dict[str, _Sample]) -> tuple[str, ...]:
        without = {
            "images have no caption": [key for key in samples if not samples[key].text],
            "captions have no image": [key for key in samples if not samples[key].image],
        }
        return _summaries(without) + _summaries(self._problems, "files")

    def _kinds(self) -> tuple[str, ...]:
        """What there is in place of samples: `it holds 4 *.input.jpg, 4 *.output.txt`."""
        lines = []
        if self._extensions:
            kinds = [f"{n} *.{kind}" for kind, n in self._extensions.most_common(_MAX_LISTED)]
            lines.append(f"it holds {', '.join(kinds)}")
        if self._json_keys:
            keys = [f"{key[:50]!r} ({n})" for key, n in self._json_keys.most_common(_MAX_LISTED)]
            lines.append(f"its JSON has the keys {', '.join(keys)}")
        return tuple(lines)


def _count(counts: Counter[str], what: str) -> None:
    if what in counts or len(counts) < _MAX_KINDS:
        counts[what] += 1


def _location(member: TarMember) -> _Location:
    return member.offset, len(member.content), zlib.crc32(member.content)


def _summaries(findings: Mapping[str, list[str]], kind: str = "keys") -> tuple[str, ...]:
    return tuple(summarize(what, items, kind) for what, items in findings.items() if items)


def summarize(what: str, items: list[str], kind: str = "keys") -> str:
    """A count and the first items: `3 images have no caption (keys 0007, 0009, 0031)`."""
    return f"{len(items)} {what} ({kind} {first_few(items)})"


def _image_ids(samples: dict[str, _Sample]) -> tuple[list[int], Ids]:
    """The ids of the samples, all different, and their source."""
    sources: dict[Ids, list[int | None]] = {
        "given": [sample.parsed.image_id for sample in samples.values()],
        "keys": [key_id(key) for key in samples],
    }
    for source, candidates in sources.items():
        ids = [image_id for image_id in candidates if image_id is not None]
        if len(set(ids)) == len(samples):
            return ids, source
    return [hashed_id(key) for key in samples], "names"

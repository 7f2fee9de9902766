"""Records in tar shards: `ROOT/train/*.tar` and `ROOT/val/*.tar`, read in parts by their indexes.

Convention: samples are numbered through all shards, in the order of the names in `shards.json`. A
process holds that file's columns and the indexes that it used last, so that its memory does not
grow with the number of samples.
"""

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from virtex.data.contents import CONTENT_ROW
from virtex.data.images import BadImage, OnBadImage
from virtex.data.plain_text import CONVERT, NotTextError, encoding_name
from virtex.data.recently_used import RecentlyUsed
from virtex.data.records import Record, hashed_id
from virtex.data.shards import sample_text
from virtex.data.shards.indexing import (
    Indexing,
    OnIndexed,
    ignore_progress,
    manifest_and_home,
)
from virtex.data.shards.manifest import MANIFEST, ShardManifest, check_shards, index_name
from virtex.data.shards.sample_text import (
    DEFAULT_FORMAT,
    Kind,
    MalformedError,
    SampleText,
    TextFormat,
)
from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames
from virtex.data.shards.store import Store
from virtex.data.shards.tar_index import KINDS, TarIndex, read_index
from virtex.data.shards.tar_members import BLOCK, header_name
from virtex.errors import RunError, UserError

_REMEDY = {
    "captions": "pack a data set of captions",
    "categories": "pack one with `virtex pack --from coco --labels categories`",
}


@dataclass(frozen=True)
class Member:
    """A file in a shard, unread."""

    store: Store
    shard: str
    index_root: str
    offset: int
    size: int
    crc32: int
    variant: str = ""  # of the index
    manifest: str = MANIFEST

    def content(self) -> bytes:
        """The member's bytes; raises BadImage unless they are those that were indexed."""
        data = self.store.read(self.shard, self.offset, self.size)
        if len(data) < self.size:
            raise BadImage(str(self), "the shard ends before it does")
        if zlib.crc32(data) != self.crc32:
            raise BadImage(
                str(self),
                "its content is not what was indexed: the shard is damaged or was replaced; copy it"
                f" again, or remove {self.manifest} and"
                f" {index_name(self.shard, self.variant)} from {self.index_root}"
                " to have them made from the present shards",
            )
        return data

    def __str__(self) -> str:
        """The shard's address and the member's name in it."""
        header = self.store.read(self.shard, self.offset - BLOCK, BLOCK)
        name = header_name(header) or f"the member at byte {self.offset}"
        return f"{self.store.root}/{self.shard}: {name}"


def _parse(text: Member, kind: Kind, form: TextFormat) -> SampleText:
    try:
        return sample_text.parse(text.content(), kind, form)
    except NotTextError as error:
        raise BadImage(
            str(text), f"it is not {encoding_name(form.encoding)} text: {error}; {CONVERT}"
        ) from error
    except MalformedError as error:
        raise BadImage(str(text), f"it is not well-formed JSON: {error}") from error


class Shards:
    """The records of one split; its image ids are read when they are first needed."""

    def __init__(
        self,
        store: Store,
        home: Store,
        manifest: ShardManifest,
        held: int,
        form: TextFormat = DEFAULT_FORMAT,
    ) -> None:
        """`home` has the indexes of the shards in `store`; `held` of their rows stay in memory."""
        self.store, self.home, self.manifest = store, home, manifest
        self._form = form
        self._starts = np.concatenate([[0], np.cumsum(manifest.samples)])
        self._indexes: RecentlyUsed[int, TarIndex] = RecentlyUsed(held, len)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        place = index - int(self._starts[shard])
        tar_index = self._index(shard)
        image_id, *locations, kind = tar_index.rows[place].item()
        name = self.manifest.names[shard]
        text = self._member(name, *locations[3:])
        parsed = _parse(text, KINDS[kind], self._form)
        categories = parsed.categories or ()
        if categories and self.categories and categories[-1] > len(self.categories):
            reason = (
                f"category {categories[-1]}, and {self.manifest.name} names {len(self.categories)}"
            )
            raise BadImage(str(text), reason)
        return Record(
            image_id=hashed_id(name, image_id) if self.manifest.hashed_ids else image_id,
            image=self._member(name, *locations[:3]),
            captions=parsed.captions,
            categories=categories,
            others=tuple(self._member(name, *image) for image in tar_index.further_images(place)),
        )

    def _member(self, shard: str, offset: int, size: int, crc32: int) -> Member:
        index = self.manifest.variant, self.manifest.name
        return Member(self.store, shard, self.home.root, offset, size, crc32, *index)

    @property
    def report(self) -> tuple[str, ...]:
        """The findings of when the shards were made, a line each."""
        return self.manifest.report + self.manifest.excluded

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the categories; empty in a data set of captions."""
        return self.manifest.categories or ()

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Samples in each shard, (S,)."""
        return self.manifest.samples

    @property
    def fingerprint(self) -> str:
        """A hash of the content of all shards."""
        return self.manifest.fingerprint

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row for each record, (N,), with the ids of the indexes; reads all indexes."""
        fields = list(CONTENT_ROW.names or ())
        shards = [self._rows(shard)[fields] for shard in range(len(self.shard_sizes))]
        return np.concatenate([rows.astype(CONTENT_ROW) for rows in shards])

    @property
    def caption_count(self) -> None:
        """None: counting the captions would mean reading all shards."""

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,); reads all indexes."""
        return np.concatenate([self._image_ids(shard) for shard in range(len(self.shard_sizes))])

    def missing(self, positions: Iterable[int]) -> list[Path]:  # noqa: ARG002
        """None: opening the shards has checked that they exist."""
        return []

    def _image_ids(self, shard: int) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = self._rows(shard)["image_id"].astype(np.int64)
        if not self.manifest.hashed_ids:
            return ids
        name = self.manifest.names[shard]
        return np.array([hashed_id(name, image_id) for image_id in ids.tolist()], np.int64)

    def _rows(self, shard: int) -> npt.NDArray[np.void]:
        return self._index(shard).rows

    def _index(self, shard: int) -> TarIndex:
        """The index of a shard, from memory if it was used recently."""
        index = self._indexes.get(shard)
        if index is None:
            index = self._read_index(shard)
            self._indexes.put(shard, index)
        return index

    def _read_index(self, shard: int) -> TarIndex:
        manifest, tar = self.manifest, self.manifest.names[shard]
        name = manifest.index_name(tar)
        digest = manifest.index_sha256[shard].tobytes()
        tar_digest = manifest.tar_sha256[shard].tobytes()
        self.home.register_checksums({name: (int(manifest.index_bytes[shard]), digest.hex())})
        self.store.register_checksums({tar: (int(manifest.tar_bytes[shard]), tar_digest.hex())})
        address = f"{self.home.root}/{name}"
        content = self.home.read(name)
        if hashlib.sha256(content).digest() != digest:
            raise RunError(
                f"{address} is not the index that {self.home.root}/{manifest.name} lists; copy it"
                " again, or remove both to have them made again"
            )
        return read_index(content, address)


def open_shards(
    store: Store,
    labels: Literal["captions", "categories"],
    on_bad_image: OnBadImage,
    *,
    cache_dir: Path,
    window: int,
    names: ShardNames = ALL_SHARDS,
    form: TextFormat = DEFAULT_FORMAT,
    on_indexed: OnIndexed = ignore_progress,
    touched: bool = True,
) -> Shards:
    """The records of the shards `names` in `store`, with captions or with categories.

    `window` is the number of samples that are shuffled together; `on_indexed` is called while
    shards without an index are read, whose indexes are written beside them if they may be
    `touched`. Raises UserError if shards are missing, of another size or malformed, if they hold
    other labels, and under `on_bad_image` "error" if some of their samples cannot be used.
    """
    indexing = Indexing(store, cache_dir, names, form, touched)
    manifest, home = manifest_and_home(indexing, on_indexed)
    check_shards(store, manifest, names)
    if manifest.labels != labels or (labels == "categories" and manifest.categories is None):
        raise UserError(
            f"the shards of {store.root} hold {manifest.labels}"
            f"{'' if manifest.labels != labels else ' without names'}, and MODEL.NAME needs"
            f" {labels}; {_REMEDY[labels]}"
        )
    if manifest.excluded and on_bad_image == "error":
        raise UserError(
            f"{store.root}: {'; '.join(manifest.excluded)}. Correct the shards, or set"
            " DATA.ON_BAD_IMAGE to skip to train without these"
        )
    # Two windows meet in a batch.
    held = 2 * max(window, int(manifest.samples.max()))
    return Shards(store, home, manifest, held, form)

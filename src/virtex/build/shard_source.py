"""A source of tar shards, on a disk or at an address: in train/ and val/, or in one directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from virtex.build.observer import Observer
from virtex.config.data import Data
from virtex.config.sources import Source
from virtex.data.remote.store import open_store
from virtex.data.shards.indexing import Indexing, has_shards
from virtex.data.shards.reader import Shards, open_shards
from virtex.data.shards.sample_text import TextFormat
from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames
from virtex.data.shards.store import cache_directory
from virtex.errors import UserError

Labels = Literal["captions", "categories"]
Split = Literal["train", "val"]


@dataclass(frozen=True)
class ShardSource:
    """The shards of `source`, in which an HTTP server has a manifest for each directory."""

    source: Source
    data: Data
    labels: Labels
    observer: Observer

    @property
    def root(self) -> str:
        return self.source.root.rstrip("/")

    def split(self, split: Split) -> Shards:
        """The shards of a split; raises `UserError`."""
        inside = f"{self.root}/{split}"
        if self._has(inside):
            return self._open(inside)
        if self._has(self.root, ShardNames("train")) and self._has(self.root, ShardNames("val")):
            return self._open(self.root, ShardNames(split))
        if Path(inside).is_dir() or not self._has(self.root):
            return self._open(inside)
        raise UserError(
            f"DATA.ROOT ({self.root}) holds shards itself, and their names do not tell which are"
            " for training and which for validation; set DATA.VAL_SHARE, such as 0.02, to draw the"
            " validation split, or move them into train/ and val/"
        )

    def whole(self) -> Shards:
        """All shards, of which a validation split is drawn; raises `UserError`."""
        inside = f"{self.root}/train"
        return self._open(inside if Path(inside).is_dir() or self._has(inside) else self.root)

    def validation(self) -> list[str]:
        """The places of validation splits that exist."""
        inside = f"{self.root}/val"
        found = [inside] if Path(inside).is_dir() or self._has(inside) else []
        if self._has(self.root, ShardNames("val")):
            found.append(f"shards of {self.root} with 'val' in their names")
        return found

    def _has(self, root: str, names: ShardNames = ALL_SHARDS) -> bool:
        return has_shards(self._indexing(root, names))

    def _indexing(self, root: str, names: ShardNames) -> Indexing:
        data, cache_dir = self.data, cache_directory(self.data.cache_dir)
        store = open_store(
            root, cache_dir=cache_dir, cache_gb=data.cache_gb, notify=self.observer.notify
        )
        form = TextFormat(self.source.columns.caption, self.source.encoding)
        return Indexing(store, cache_dir, names, form)

    def _open(self, root: str, names: ShardNames = ALL_SHARDS) -> Shards:
        indexing = self._indexing(root, names)
        return open_shards(
            indexing.store,
            self.labels,
            self.data.on_bad_image,
            cache_dir=indexing.cache_dir,
            window=self.data.shuffle_window,
            names=names,
            form=indexing.form,
            on_indexed=self.observer.on_indexed,
            touched=self.observer.touched,
        )

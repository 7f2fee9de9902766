"""The shards among the files of a directory, and their splits where names tell them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from virtex.errors import first_few

_WORDS = {"train": {"train", "training"}, "val": {"val", "valid", "validation", "dev"}}


def is_shard(name: str) -> bool:
    """Whether a file's name is that of a shard."""
    return name.endswith(".tar") and not name.startswith(".")


@dataclass(frozen=True)
class ShardNames:
    """All shards of a directory; with a `split`, those that have its name in theirs.

    The name is a word of its own: `cc3m-train-0001.tar` is of train.
    """

    split: Literal["train", "val"] | None = None

    def of(self, files: Iterable[str]) -> list[str]:
        """The shards among the names of files, in order."""
        return sorted(name for name in files if is_shard(name) and self._has_split(name))

    def _has_split(self, name: str) -> bool:
        return self.split is None or not _WORDS[self.split].isdisjoint(_words(name))

    def none_found(self, root: str, files: Iterable[str]) -> str:
        """The message for a directory without these shards."""
        others = [name for name in files if is_shard(name)]
        if others:
            return (
                f"no shard of {root} has {self.split!r} in its name ({first_few(others)}); set"
                " DATA.VAL_SHARE (--val-share) to draw the validation split from all of them, or"
                " move the shards into train/ and val/"
            )
        return (
            f"there are no shards in {root}: DATA.ROOT must hold train/ and val/ with tar"
            " files, as `virtex pack` writes them"
        )


ALL_SHARDS = ShardNames()


def name_splits(files: Iterable[str]) -> set[str]:
    """The splits, train and val, that any shard among the names of files has in its name."""
    words = set[str]().union(*(_words(name) for name in files if is_shard(name)))
    return {split for split, names in _WORDS.items() if not names.isdisjoint(words)}


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z]+", name.removesuffix(".tar").lower()))

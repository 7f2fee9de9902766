"""The files of a directory of data, by kind; hidden ones are ignored."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from virtex.data.images import IMAGE_EXTENSIONS
from virtex.data.shards.shard_names import is_shard
from virtex.data.sources.find_images import find_images
from virtex.data.sources.table_rows import KINDS as TABLES
from virtex.files import reading


@dataclass(frozen=True)
class DataDirectory:
    """A directory; its files are listed when they are first needed."""

    path: Path

    @cached_property
    def entries(self) -> list[Path]:
        """What is in the directory itself, sorted; raises UserError if it cannot be listed."""
        with reading(self.path):
            return sorted(each for each in self.path.iterdir() if not each.name.startswith("."))

    @property
    def directories(self) -> list["DataDirectory"]:
        """The directories in it."""
        return [DataDirectory(entry) for entry in self.entries if entry.is_dir()]

    def directory(self, name: str) -> "DataDirectory | None":
        """The directory in it with this name, if there is one."""
        path = self.path / name
        return DataDirectory(path) if path.is_dir() else None

    @property
    def tables(self) -> list[Path]:
        """The tables in it, or else those one level below."""
        own = [path for path in self.entries if path.suffix.lower() in TABLES]
        return own or [
            path
            for directory in self.directories
            for path in directory.entries
            if path.suffix.lower() in TABLES
        ]

    @property
    def shards(self) -> list[str]:
        """The names of the tar shards in it."""
        return [path.name for path in self.entries if is_shard(path.name)]

    @cached_property
    def files(self) -> list[Path]:
        """All files in it and below."""
        return [path for path in find_images([self.path]) if isinstance(path, Path)]

    @cached_property
    def images(self) -> list[Path]:
        """The images among the files, by their extensions."""
        return [path for path in self.files if path.suffix[1:].lower() in IMAGE_EXTENSIONS]

    @cached_property
    def described_images(self) -> list[Path]:
        """The images with a text file of the same name beside them."""
        texts = {path.with_suffix("") for path in self.files if path.suffix.lower() == ".txt"}
        return [path for path in self.images if path.with_suffix("") in texts]

    @property
    def extensions(self) -> str:
        """The most frequent extensions of all files: `300 .png, 2 .xlsx`; empty without files."""
        counts = Counter(path.suffix or "without extension" for path in self.files)
        return ", ".join(f"{number:,} {kind}" for kind, number in counts.most_common(6))

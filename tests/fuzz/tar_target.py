"""Fuzz target of shards: the tar file, read whole to make its index, and then by it."""

import json
import tarfile
from pathlib import Path

import numpy as np
from tests.data.tars import tar
from tests.fuzz import trees
from tests.fuzz.mutation import mutated

from virtex.data.shards import sample_text
from virtex.data.shards.store import LocalStore, MemoryStore
from virtex.data.shards.tar_index import KINDS, index_tar, read_index
from virtex.errors import UserError

_BLOCK = 512
_WORDS = (
    b"ustar\0|ustar  \0|././@LongLink|30 path=../../etc/passwd\n|19 size=99999999999\n|path="
    b'|\0|/|../|77777777777\0|\x80\0\0\0\0\0\0\1|\xff\xff\xff\xff|{"caption": "a"}|\xff|99999999 '
    b"|22 GNU.sparse.major=1\n"
).split(b"|")


class ShardTarget:
    """A tar file of any format; in most inputs the sums of changed headers fit again."""

    name = "shards"
    allowed = (UserError,)

    def __init__(self) -> None:
        members = {
            "a/0001.jpg": bytes(range(256)) * 3,
            "a/0001.json": json.dumps({"image_id": 7, "caption": "a dog"}).encode(),
            "a/0002.png": b"\x89PNG",
            "a/0002.txt": "zwei Hunde é".encode(),
            "d/" * 60 + "0003.jpg": b"3",
            "d/" * 60 + "0003.txt": b"a cat",
        }
        formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
        self._seeds = [tar(members, format=kind) for kind in formats]

    def generate(self, rng: np.random.Generator) -> bytes:
        one, other = (self._seeds[int(rng.integers(len(self._seeds)))] for _ in range(2))
        if rng.integers(4) == 0:
            return mutated(one, rng, _WORDS, other)
        # Whole blocks, so that what follows keeps its place.
        blocks = [one[start : start + _BLOCK] for start in range(0, len(one), _BLOCK)]
        for _ in range(int(rng.integers(1, 4))):
            index = int(rng.integers(min(len(blocks), 24)))
            changed = mutated(blocks[index], rng, _WORDS, other)[:_BLOCK].ljust(_BLOCK, b"\0")
            blocks[index] = with_sum(changed)
        return b"".join(blocks)

    def read(self, content: bytes, directory: Path) -> object:
        (directory / "0.tar").write_bytes(content)
        store = LocalStore(str(directory))
        index = index_tar(store, "0.tar")
        rows = read_index(index.to_bytes(), "0.index").rows
        assert rows.tobytes() == index.rows.tobytes()
        return [
            sample_text.parse(
                store.read("0.tar", int(row["text_offset"]), int(row["text_bytes"])),
                KINDS[row["text_kind"]],
            )
            for row in rows
        ]


class IndexTarget:
    """The index of a shard, as a file from elsewhere."""

    name = "index"
    allowed = (UserError,)

    def __init__(self) -> None:
        store = MemoryStore("data")
        store.write("0.tar", tar({"1.jpg": b"1", "1.txt": b"a dog", "2.jpg": b"2", "3.txt": b"a"}))
        self._seed = index_tar(store, "0.tar").to_bytes()

    def generate(self, rng: np.random.Generator) -> bytes:
        if rng.integers(2):
            return mutated(
                self._seed, rng, (b"null", b"-1", b"1e999", b"\n", b"[" * 3000), self._seed
            )
        header, _, rows = self._seed.partition(b"\n")
        changed = trees.changed(json.loads(header), rng, [*json.loads(header)])
        return json.dumps(changed).encode() + b"\n" + rows

    def read(self, content: bytes, directory: Path) -> object:
        (directory / "0.index").write_bytes(content)
        return read_index(LocalStore(str(directory)).read("0.index"), "0.index")


def with_sum(block: bytes) -> bytes:
    """A header with the sum that fits it."""
    plain = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(plain) + block[156:]

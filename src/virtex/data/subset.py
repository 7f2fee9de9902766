"""Subsets of a data set, for data-efficiency runs, and the file that lists one for another run.

`subset.json` is a JSON object with the keys `format`, 1; `seed` and `percentage`, null if the
images were listed by a file; `images`, their number, and `of`, the number of all images; `sha256`
of the ids in decimal, ascending, joined by newlines; `ids`, ascending. A list made by hand needs
only `ids`, in any order.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, FailFast, Field

from virtex.data.json_files import Count, Int64, JsonFile, parse_json
from virtex.data.records import Record, Records
from virtex.data.shared_strings import shared
from virtex.errors import UserError, first_few, report_lines
from virtex.files import read_at_most, whole_file

SUBSET = "subset.json"
"""The name of the manifest in the directory of a run."""

_MOST_BYTES = 64 << 20  # five million ids
_LEAST = 'expected the subset.json of a run, or at least {"ids": [1, 2, 3]}'


class SubsetManifest(JsonFile):
    """The content of `subset.json`: image ids and how they were chosen from `of` images."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    seed: Count | None = None
    percentage: Annotated[float, Field(gt=0, le=100)] | None = None
    images: Count | None = None
    of: Count | None = None
    sha256: str | None = None
    ids: Annotated[tuple[Int64, ...], Field(min_length=1), FailFast()]

    @classmethod
    def from_ids(
        cls,
        ids: tuple[int, ...],
        of: int | None = None,
        seed: int | None = None,
        percentage: float | None = None,
    ) -> Self:
        """The complete manifest of `ids`, which are ascending and all different."""
        sha256 = hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()
        images = len(ids)
        return cls(seed=seed, percentage=percentage, images=images, of=of, sha256=sha256, ids=ids)


def training_subset(
    records: Records, *, percentage: float, seed: int, manifest: Path | None
) -> tuple[Records, SubsetManifest | None]:
    """The images to train on and their manifest, which is None for all of them.

    These are the images that the file `manifest` lists, or else `percentage` percent of `records`.
    Raises UserError as `subset`, `read` and `select` do.
    """
    if manifest is not None:
        listed = read(manifest)
        return select(records, listed, manifest), SubsetManifest.from_ids(listed.ids, len(records))
    selected = subset(records, percentage, seed)
    if selected is records:
        return records, None
    ids = tuple(sorted(selected.image_ids.tolist()))
    return selected, SubsetManifest.from_ids(ids, len(records), seed, percentage)


def select(records: Records, manifest: SubsetManifest, path: Path) -> Records:
    """The records of the manifest's ids, in the order of `records`.

    Raises UserError, which names the manifest's `path`, for ids that `records` does not have.
    """
    wanted = np.array(manifest.ids, np.int64)
    image_ids = records.image_ids
    missing = wanted[~np.isin(wanted, image_ids)]
    if len(missing):
        raise UserError(
            f"{path} lists {len(wanted)} images, and {len(missing)} of them are not among the "
            f"{len(image_ids)} training images of DATA.ROOT (image ids"
            f" {first_few(missing.tolist())}); set DATA.ROOT to the data from which the list was"
            " made, or remove these ids and 'sha256' from it"
        )
    return Subset(records, np.flatnonzero(np.isin(image_ids, wanted)))


def write_or_remove(path: Path, manifest: SubsetManifest | None) -> None:
    """Write the manifest of a run atomically; for None, remove an old one. Raises OSError."""
    if manifest is None:
        path.unlink(missing_ok=True)
        return
    with whole_file(path) as file:
        file.write((json.dumps(manifest.model_dump(), indent=1) + "\n").encode())


def change(path: Path, manifest: SubsetManifest | None) -> str | None:
    """Describe how the images of a resumed run differ from those that the file at `path` lists.

    None if they do not, or if the file does not exist. Another seed or percentage is a change of
    settings; the same ones with other images mean that the data have changed.
    """
    if manifest is None or not path.exists():
        return None
    before = read(path)
    other_settings = (before.seed, before.percentage) != (manifest.seed, manifest.percentage)
    if other_settings or before.ids == manifest.ids:
        return None
    differences = report_lines(
        {
            "left out": np.setdiff1d(before.ids, manifest.ids),
            "new": np.setdiff1d(manifest.ids, before.ids),
        },
        "image ids",
    )
    return (
        f"subset: this run trained on the {len(before.ids)} images of {path}, and now would on "
        f"{len(manifest.ids)} of {manifest.of}: {', '.join(differences)}"
    )


def read(path: Path) -> SubsetManifest:
    """Read the manifest in a file.

    Raises UserError, with the path and the remedy, if it is missing, malformed, empty, or does not
    match its `sha256` or `images`, which are checked if they are there.
    """
    if path.is_dir():
        raise UserError(f"{path} is a directory; name a file such as {path / SUBSET}")
    content = read_at_most(
        path,
        _MOST_BYTES,
        name=f"the subset manifest {path}",
        remedy="check DATA.SUBSET_MANIFEST",
    )
    listed = parse_json(SubsetManifest, content, str(path), _LEAST)
    unique, counts = np.unique(np.array(listed.ids, np.int64), return_counts=True)
    repeated = unique[counts > 1].tolist()
    if repeated:
        raise UserError(
            f"{path} lists {len(repeated)} images more than once (image ids"
            f" {first_few(repeated)}); keep one of each"
        )
    ids = tuple(unique.tolist())
    manifest = SubsetManifest.from_ids(ids, listed.of, listed.seed, listed.percentage)
    if listed.images not in (None, len(ids)) or listed.sha256 not in (None, manifest.sha256):
        raise UserError(
            f"the {len(ids)} ids of {path} are not those that were written: 'sha256' or "
            "'images' does not match them. Copy the file from its run again or, if the ids are "
            "correct, remove these two keys"
        )
    return manifest


class Subset:
    """The records at some positions, in the order of the positions; takes 8 bytes for each."""

    def __init__(self, records: Records, positions: npt.NDArray[np.int64]) -> None:
        """`positions` is (n,), each 0 … N-1."""
        self.whole = records
        self._positions = shared(positions.astype(np.int64))

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.whole[int(self._positions.numpy()[index])]

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` (0 … n-1) that do not exist or are empty."""
        kept = self._positions.numpy()
        return self.whole.missing(int(kept[position]) for position in positions)

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (n,)."""
        ids: npt.NDArray[np.int64] = self.whole.image_ids[self._positions.numpy()]
        return ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of records in each shard that has any; positions must ascend."""
        return np.unique(self._shard_of_each(), return_counts=True)[1]

    def parts(self, sizes: Sequence[int]) -> tuple[npt.NDArray[np.int64], ...]:
        """`shard_sizes` of each of the parts that the records consist of.

        `sizes` are the numbers of whole shards in each part; positions must ascend.
        """
        shards, counts = np.unique(self._shard_of_each(), return_counts=True)
        cuts = np.searchsorted(shards, np.cumsum(sizes)[:-1])
        return tuple(np.split(counts, cuts))

    @property
    def shards(self) -> npt.NDArray[np.int64]:
        """The numbers of the shards that hold any of the records, ascending."""
        return np.unique(self._shard_of_each())

    @property
    def fingerprint(self) -> str:
        """A hash of the records and the positions."""
        digest = hashlib.sha256(self.whole.fingerprint.encode())
        digest.update(self._positions.numpy().data)
        return digest.hexdigest()

    def _shard_of_each(self) -> npt.NDArray[np.int64]:
        ends = np.cumsum(self.whole.shard_sizes)
        return np.searchsorted(ends, self._positions.numpy(), side="right")


def subset(records: Records, percentage: float, seed: int) -> Records:
    """`percentage` (0 < p ≤ 100) percent of the images, rounded down; all of them for 100.

    Each image has a rank, the hash of `seed` and its id, and those with the lowest ranks are taken.
    So a smaller subset lies inside every larger one, and the choice depends neither on the file
    system nor on the order of the annotations nor on NumPy's version. The order of `records` is
    kept.

    Raises UserError if `percentage` is out of its range or gives no image.
    """
    if not 0 < percentage <= 100:
        raise UserError(
            f"DATA.USE_PERCENTAGE is {percentage}; expected a number above 0 and at most 100"
        )
    if percentage == 100:
        return records
    image_ids = records.image_ids
    share = _share(percentage, len(image_ids))
    count = math.floor(share)
    if count == 0:
        rounded_up = Context(prec=4, rounding=ROUND_CEILING)
        raise UserError(
            f"DATA.USE_PERCENTAGE is {percentage}, which of {len(image_ids)} training images is "
            f"{float(share):.2g}, less than one; the smallest percentage that gives an image is "
            f"{rounded_up.divide(Decimal(100), Decimal(len(image_ids)))}"
        )
    ranks = np.array([_rank(seed, image_id) for image_id in image_ids.tolist()], np.uint64)
    # Equal hashes are practically impossible; the id would decide.
    return Subset(records, np.sort(np.lexsort((image_ids, ranks))[:count]))


def subset_size(images: int, percentage: float, manifest: Path | None) -> int:
    """The number of images that `training_subset` takes of so many; raises UserError as `read`."""
    return math.floor(_share(percentage, images)) if manifest is None else len(read(manifest).ids)


def _share(percentage: float, images: int) -> Fraction:
    # The number as it is written: as a float, 32.3 percent of 1000 images are not quite 323.
    return Fraction(str(percentage)) * images / 100


def _rank(seed: int, image_id: int) -> int:
    digest = hashlib.blake2b(f"{seed} {image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")

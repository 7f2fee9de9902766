"""A validation split that is drawn from the training images, and groups that stay on one side.

Each image, or each group of images, is drawn by a hash of the seed and its id or name alone. So it
stays on its side when other images are added or removed, on every machine and in every format.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from virtex.data.contents import WholeSplit
from virtex.data.records import Record
from virtex.data.shared_strings import PackedStrings, shared
from virtex.data.subset import Subset
from virtex.errors import UserError, first_few

_HASHES = 2**64


@dataclass(frozen=True)
class Groups:
    """The group of each record by its number in `names`, (N,) int64; -1 for none."""

    column: str
    names: PackedStrings
    numbers: torch.Tensor

    def present(self) -> set[str]:
        """The names of the groups that have a record."""
        numbers = np.unique(self.numbers.numpy())
        return {self.names[number] for number in numbers.tolist() if number >= 0}


def check_apart(root: str, training: Groups, validation: Groups) -> None:
    """Raise UserError if a group has records in both splits."""
    shared_names = sorted(training.present() & validation.present())
    if shared_names:
        raise UserError(
            f"{root}: {len(shared_names)} groups of the column {training.column!r} have images both"
            f" for training and for validation ({first_few(shared_names)}); move each of them to"
            " one side, or have one table split by DATA.VAL_SHARE, which keeps groups together"
        )


class EmptySideError(UserError):
    """A draw that leaves no image on one side."""


class DrawnSplit:
    """One side of a data set that was split by drawing, in the order of the whole."""

    def __init__(
        self,
        records: WholeSplit,
        positions: npt.NDArray[np.int64],
        report: tuple[str, ...],
        categories: tuple[str, ...] = (),
    ) -> None:
        """`positions` (n,) ascend; `categories` are the names of those of objects."""
        self._records, self._positions = records, shared(positions)
        self.subset = Subset(records, positions)
        self.report = report
        self.categories = categories

    def __len__(self) -> int:
        return len(self.subset)

    def __getitem__(self, index: int) -> Record:
        return self.subset[index]

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` (0 … n-1) that do not exist or are empty."""
        return self.subset.missing(positions)

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (n,)."""
        return self.subset.image_ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """The number of records in each shard that has any."""
        return self.subset.shard_sizes

    @property
    def fingerprint(self) -> str:
        """A hash of the records and the positions."""
        return self.subset.fingerprint

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (n,)."""
        rows: npt.NDArray[np.void] = self._records.content_rows[self._positions.numpy()]
        return rows

    @property
    def caption_count(self) -> None:
        """None: captions are counted in whole splits alone."""


@dataclass(frozen=True)
class Draw:
    """The share of the images to draw for validation, and the seed."""

    share: float
    seed: int

    def split(
        self,
        root: str,
        records: WholeSplit,
        *,
        groups: Groups | None = None,
        report: tuple[str, ...] = (),
        categories: tuple[str, ...] = (),
    ) -> tuple[DrawnSplit, DrawnSplit]:
        """The training and the validation side; the `report` of the whole goes to the first.

        Raises EmptySideError if a side has no image.
        """
        drawn, note = self._drawn(records.image_ids, groups)
        if drawn.all() or not drawn.any():
            side = "training" if drawn.all() else "validation"
            raise EmptySideError(
                f"{root}: {self._setting} leaves no image for {side} of {len(drawn)}"
                f"{'' if groups is None else f' in {len(groups.present())} groups'}; set another"
                " DATA.VAL_SHARE or DATA.VAL_SEED"
            )
        line = (
            f"{drawn.sum():,} of {len(drawn):,} images are drawn for validation by {self._setting}"
        )
        return (
            DrawnSplit(records, np.flatnonzero(~drawn), (*report, line + note), categories),
            DrawnSplit(records, np.flatnonzero(drawn), (), categories),
        )

    @property
    def _setting(self) -> str:
        return f"DATA.VAL_SHARE {self.share:g} and DATA.VAL_SEED {self.seed}"

    def _drawn(
        self, image_ids: npt.NDArray[np.int64], groups: Groups | None
    ) -> tuple[npt.NDArray[np.bool_], str]:
        """Whether each record is drawn, (N,), and what there is to say about the groups."""
        if groups is None:
            return self._of("image", image_ids.tolist()), ""
        of_names = self._of("group", groups.names)
        numbers = groups.numbers.numpy()
        alone = numbers < 0
        drawn = np.where(alone, False, of_names[numbers])
        drawn[alone] = self._of("image", image_ids[alone].tolist())
        present = np.unique(numbers[~alone])
        note = f"; {of_names[present].sum():,} of {len(present):,} groups of {groups.column!r}"
        if alone.any():
            note += f", and {alone.sum():,} images without a group are drawn one by one"
        return drawn, note

    def _of(self, kind: str, names: Iterable[object]) -> npt.NDArray[np.bool_]:
        """Whether each image or group is drawn, by its id or name."""
        limit = int(Fraction(str(self.share)) * _HASHES)
        return np.array([_hash(self.seed, kind, name) < limit for name in names], bool)


def _hash(seed: int, kind: str, name: object) -> int:
    text = f"validation\0{seed}\0{kind}\0{name}".encode("utf-8", "replace")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")

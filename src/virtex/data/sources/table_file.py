"""Which file is the table of a split, and which of its rows belong to the split."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.sources.table_layout import TableLayout
from virtex.data.sources.table_rows import KINDS
from virtex.errors import UserError, first_few

_OTHER = 0
_SPLITS = {
    **dict.fromkeys(("train", "training"), 1),
    **dict.fromkeys(("val", "valid", "validation", "dev"), 2),
}
"""The values of a column of splits that are used, in lower case."""
_CODES = {"train": 1, "val": 2}


def find_table(root: Path, split: str | None, layout: TableLayout) -> Path:
    """The table to read for a split, or for all rows if that is None; raises UserError.

    `root` is a table, or a directory with a table for each split, or with one that has a column of
    splits.
    """
    if root.is_file():
        _check_whole(root, split, layout)
        return root
    if layout.split is not None:
        return _only_table(root, layout.split)
    name = split or "train"
    paths = split_tables(root, name)
    if len(paths) == 1:
        return paths[0]
    if paths:
        names = ", ".join(path.name for path in paths)
        raise UserError(f"DATA.ROOT ({root}) has several tables of one split: {names}; leave one")
    names = ", ".join(f"{name}{kind}" for kind in KINDS)
    other = ""
    if name == "val":
        other = (
            "; without one, set DATA.VAL_SHARE (--val-share) to draw it from the training images,"
            " or DATA.COLUMNS.SPLIT (--split-column) to the column that names the split"
        )
    raise UserError(
        f"DATA.ROOT ({root}) has no table of the split '{name}'; expected one of {names}"
        f" (Parquet needs the extra 'table'), or set DATA.ROOT to the table of all splits{other}"
    )


def split_tables(root: Path, split: str) -> list[Path]:
    """The tables of a split that exist in a directory.

    That is `train.csv`, or `metadata.csv` in a directory such as `train/`, as datasets has it
    (ImageFolder), whose images are relative to that.
    """
    names = [
        split,
        *(f"{name}/metadata" for name, code in _SPLITS.items() if code == _CODES[split]),
    ]
    return [path for name in names for kind in KINDS if (path := root / f"{name}{kind}").is_file()]


def _check_whole(path: Path, split: str | None, layout: TableLayout) -> None:
    if path.suffix.lower() not in KINDS:
        raise UserError(f"DATA.ROOT ({path}): the extension must be one of {', '.join(KINDS)}")
    if split is not None and layout.split is None:
        raise UserError(
            f"DATA.ROOT ({path}) is one table, and nothing says which of its rows are for"
            " validation; set DATA.COLUMNS.SPLIT (--split-column) to the column that names the"
            " split, or DATA.VAL_SHARE (--val-share), such as 0.02, to draw it"
        )


def _only_table(root: Path, column: str) -> Path:
    paths = sorted(path for kind in KINDS for path in root.glob(f"*{kind}"))
    if len(paths) == 1:
        return paths[0]
    found = f"{len(paths)} ({first_few([path.name for path in paths])})" if paths else "none"
    raise UserError(
        f"DATA.ROOT ({root}): expected one table with the column {column!r} of"
        f" DATA.COLUMNS.SPLIT, but there are {found}; set DATA.ROOT to the file itself"
        if paths
        else f"DATA.ROOT ({root}) has no table; expected a file of {', '.join(KINDS)}"
    )


def is_for_training(value: str) -> bool:
    """Whether a value of a column of splits is that of training."""
    return _SPLITS.get(value.strip().lower()) == _CODES["train"]


@dataclass
class SplitRows:
    """The splits of all rows of a table, in its order."""

    codes: "array[int]" = field(default_factory=lambda: array("b"))
    counts: Counter[str] = field(default_factory=Counter)

    def append(self, value: str | None) -> None:
        """Add a row; the value of its split is None if it has none."""
        name = (value or "").strip()
        self.codes.append(_SPLITS.get(name.lower(), _OTHER))
        self.counts[name] += 1

    @property
    def report(self) -> tuple[str, ...]:
        """A line if rows are of other splits than those of training and validation."""
        unused = {
            value: count for value, count in self.counts.items() if value.lower() not in _SPLITS
        }
        if not unused:
            return ()
        return (f"{sum(unused.values()):,} rows of other splits are not used: {_shown(unused)}",)

    def select(
        self, path: Path, column: str, split: str, image_ids: "array[int]"
    ) -> npt.NDArray[np.bool_]:
        """Whether each row, of an image each, is of the split "train" or "val", (R,).

        Raises UserError if none is, and for an image in both splits.
        """
        codes, ids = np.array(self.codes, np.int8), np.array(image_ids, np.int64)
        selected: npt.NDArray[np.bool_] = codes == _CODES[split]
        if not selected.any():
            raise UserError(
                f"{path}: no row of the column {column!r} is of the split '{split}'; its values are"
                f" {_shown(self.counts)}; expected train and val"
            )
        both = np.intersect1d(ids[codes == 1], ids[codes == 2])
        if len(both):
            raise UserError(
                f"{path}: {len(both)} images have rows of both splits in the column {column!r}"
                f" (image ids {first_few(both.tolist())}); give all rows of an image one split"
            )
        return selected


def _shown(counts: dict[str, int]) -> str:
    most = Counter(counts).most_common(8)
    more = ", …" if len(counts) > len(most) else ""
    return ", ".join(f"{value!r} ({count:,})" for value, count in most) + more

"""Tables of labelled images: a row for each image, and one or several columns of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.sources.separated_rows import IMAGE_COLUMNS, separated_rows
from virtex.errors import UserError

Labels = npt.NDArray[np.int64] | npt.NDArray[np.int8]
TEST_SPLITS = ("val", "test", "valid", "validation")
"""Names of the test split; the first that exists is taken."""
_TEST_SHARE = 0.2
"""The share of the images that are held out as the test split if no column names it."""
_PRESENCE = {"1": 1, "0": -1, "": 0}
"""What the cells of several label columns mean."""

_NumberedRow = tuple[int, Mapping[str, str]]
"""The number of a line, and its values by column."""


@dataclass(frozen=True)
class LabelledTable:
    """The image files of a table, their labels (N,) or (N, K), and whether each is tested (N,).

    `report` has a line for a test split that was drawn.
    """

    classes: tuple[str, ...]
    images: tuple[Path, ...]
    labels: Labels
    tested: npt.NDArray[np.bool_]
    report: tuple[str, ...]


def read_labelled_table(path: Path, seed: int) -> LabelledTable:
    """The images and labels of a .csv or .tsv file.

    `seed` draws the test split if no column names it. Raises `UserError`, with the line, for
    columns or values that are not as expected.
    """
    lines = separated_rows(path)
    _, names = next(lines, (0, []))
    image = next((name for name in IMAGE_COLUMNS if name in names), None)
    columns = [name for name in names if name not in (image, "split")]
    if image is None or not columns or len(set(names)) < len(names):
        raise UserError(
            f"{path} has the columns {', '.join(map(repr, names)) or 'none'}; expected 'image', "
            "optionally 'split' (train or test), and one or several label columns, each once, "
            f"with {'commas' if path.suffix.lower() == '.csv' else 'tabs'} between them"
        )
    rows = [_cells(path, number, names, line) for number, line in lines if line]
    images = tuple(path.parent / row[image] for _, row in rows)
    if len(columns) == 1:
        classes, labels = _one_column(path, columns[0], rows)
    else:
        classes, labels = tuple(columns), _several_columns(path, columns, rows)
    report: tuple[str, ...] = ()
    if "split" in names:
        tested = np.array([_is_test(path, row) for row in rows], bool)
    else:
        tested = _held_out(labels, seed)
        report = (
            f"{path} has no column 'split'; {tested.sum()} of {len(rows)} images, drawn with seed "
            f"{seed}, are the test split",
        )
    return LabelledTable(classes, images, labels, tested, report)


def _cells(path: Path, number: int, names: Sequence[str], line: Sequence[str]) -> _NumberedRow:
    if len(line) != len(names):
        raise UserError(
            f"{path}, line {number}: the row has {len(line)} values for {len(names)} columns"
        )
    return number, {name: value.strip() for name, value in zip(names, line, strict=True)}


def _is_test(path: Path, row: _NumberedRow) -> bool:
    number, cells = row
    if cells["split"] not in ("train", *TEST_SPLITS):
        raise UserError(
            f"{path}, line {number}: the split is {cells['split']!r}; expected train, val or test"
        )
    return cells["split"] != "train"


def _held_out(labels: Labels, seed: int) -> npt.NDArray[np.bool_]:
    """Draw a fifth of the images of each class; of all images if they may have several labels."""
    rng = np.random.default_rng(seed)
    groups = labels if labels.ndim == 1 else np.zeros(len(labels), np.int64)
    drawn = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        drawn[members[: max(round(_TEST_SHARE * len(members)), 1)]] = True
    return drawn


def _one_column(
    path: Path, column: str, rows: Sequence[_NumberedRow]
) -> tuple[tuple[str, ...], Labels]:
    for number, cells in rows:
        if not cells[column]:
            raise UserError(f"{path}, line {number}: '{column}' is empty; expected a class")
    classes, labels = np.unique([cells[column] for _, cells in rows], return_inverse=True)
    return tuple(map(str, classes)), labels.astype(np.int64)


def _several_columns(path: Path, columns: Sequence[str], rows: Sequence[_NumberedRow]) -> Labels:
    for number, cells in rows:
        for column in columns:
            if cells[column] not in _PRESENCE:
                raise UserError(
                    f"{path}, line {number}: '{column}' is {cells[column]!r}; with several label "
                    "columns expected 1 (present), 0 (absent) or nothing (unknown); remove columns "
                    "that are not labels"
                )
    labels = [[_PRESENCE[cells[column]] for column in columns] for _, cells in rows]
    return np.array(labels, np.int8).reshape(-1, len(columns))

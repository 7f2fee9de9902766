"""The settings that read a table, and which of several tables is the one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from virtex.data.plain_text import UTF_8
from virtex.data.sources.table_file import find_table, split_tables
from virtex.data.sources.table_layout import TableLayout
from virtex.data.sources.table_rows import KINDS
from virtex.doctor.detected import ABSOLUTE, Choice, DetectedData, quoted
from virtex.doctor.image_column import find_image_column
from virtex.doctor.table_columns import (
    find_caption_column,
    find_group_column,
    find_id_column,
    find_split_column,
)
from virtex.doctor.table_sample import ROWS, TableSample, read_sample
from virtex.doctor.validation import share_choice
from virtex.errors import UserError, first_few

_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


@dataclass(frozen=True)
class _Given:
    """The settings that the user gives, by key."""

    settings: Mapping[str, object]

    def text(self, key: str) -> str | None:
        value = self.settings.get(f"DATA.{key}")
        return None if value is None else str(value)


def table_data(path: Path, given: Mapping[str, object]) -> DetectedData:
    """Find out how a table is read; raises UserError if it has no images or no captions."""
    if path.suffix.lower() not in KINDS:
        raise UserError(
            f"{path} is not a table: the extension must be one of {', '.join(KINDS)}; save a"
            " spreadsheet as CSV, and give text that is separated by commas or tabs the extension"
            " .csv"
        )
    return _table_data(path, path, _Given(given), has_validation=False)


def find_table_data(tables: Sequence[Path], given: Mapping[str, object]) -> DetectedData:
    """Find out which of some tables is the data set, and how it is read.

    Tables of splits, named train and val, are read together; otherwise there must be only one with
    images and captions. Raises UserError.
    """
    found: dict[Path, DetectedData] = {}
    problems: dict[Path, UserError] = {}
    for root, table in _choices(tables):
        try:
            has_validation = root != table and bool(split_tables(root, "val"))
            found[root] = _table_data(root, table, _Given(given), has_validation=has_validation)
        except UserError as error:
            problems[root] = error
    if len(found) > 1:
        raise UserError(
            f"there are {len(found)} tables of images and captions: {first_few(list(found))}; name"
            " the one to use in place of the directory. Two tables of splits must be called train"
            " and val, such as train.csv and val.csv"
        )
    if not found:
        raise UserError("\n  ".join(str(error) for error in problems.values()))
    (data,) = found.values()
    if not problems:
        return data
    note = "Other tables are not used, as they do not have both images and captions: {}."
    return replace(data, notes=(note.format(first_few(list(problems))), *data.notes))


def _choices(tables: Sequence[Path]) -> list[tuple[Path, Path]]:
    """What `DATA.ROOT` may be, each with the table to look into.

    That is the directory of a table of the training split, beside which no other one counts, or a
    table.
    """
    choices = {}
    for path in tables:
        above = (path.parent, path.parent.parent)
        root = next((each for each in above if path in _of_splits(each)), None)
        if root is None:
            if not split_tables(path.parent, "train"):
                choices[path] = path
        elif split_tables(root, "train"):
            choices[root] = find_table(root, "train", TableLayout())
    return list(choices.items())


def _of_splits(root: Path) -> list[Path]:
    return [*split_tables(root, "train"), *split_tables(root, "val")]


def _table_data(root: Path, path: Path, given: _Given, *, has_validation: bool) -> DetectedData:
    """As `table_data`, of a table `path` that is read by `DATA.ROOT` `root`."""
    sample = read_sample(path, encoding=given.text("ENCODING"), separator=given.text("SEPARATOR"))
    notes: list[str] = []
    images = find_image_column(
        sample,
        given.text("COLUMNS.IMAGE"),
        separator=given.text("IMAGE_SEPARATOR"),
        directory=given.text("IMAGE_DIRECTORY"),
    )
    captions, others = find_caption_column(sample, images.name, given.text("COLUMNS.CAPTION"))
    split, warning = None, ""
    if not has_validation and "DATA.VAL_SHARE" not in given.settings:
        split, warning = find_split_column(sample, given.text("COLUMNS.SPLIT"))
    taken = (images.name, str(captions.value))
    group = find_group_column(sample, images.name, taken, given.text("GROUP_COLUMN"))
    ids = find_id_column(sample, given.text("COLUMNS.ID"), images.name)
    choices = [
        Choice("DATA.FORMAT", "table", f"{path.name} has images and captions in its rows"),
        Choice("DATA.ROOT", str(root), ABSOLUTE),
        *images.choices,
        captions,
        *_as_read(sample, notes),
        *(each for each in (ids, split, group) if each is not None),
    ]
    if not has_validation and split is None:
        choices.append(_share(sample, images.name, group))
    return DetectedData(tuple(choices), (*notes, *_notes(others, warning)))


def _as_read(sample: TableSample, notes: list[str]) -> list[Choice]:
    """Separator and encoding, where they are not the usual ones."""
    choices = []
    if sample.separator is not None and not sample.is_named:
        name = _NAMES.get(sample.separator, repr(sample.separator))
        reason = f"the values of {sample.path.name} are separated by {name}"
        choices.append(Choice("DATA.SEPARATOR", sample.separator, reason))
    encoding = sample.encoding
    if encoding is not None and encoding.name != UTF_8:
        reason = "by its zero bytes and marks"
        if encoding.example is not None:
            reason = f"a guess; it reads {encoding.example!r}"
            notes.append(
                f"{sample.path.name} is not UTF-8. It is read as {encoding.name}, which is a guess:"
                f" check that {encoding.example!r} is right, or give --encoding."
            )
        choices.append(Choice("DATA.ENCODING", encoding.name, reason))
    return choices


def _share(sample: TableSample, images: str, group: Choice | None) -> Choice:
    """The share of validation; of a sample that is not the whole table, the count is unknown."""
    values = sample.values[images]
    count = None if len(values) >= ROWS else len(set(map(str, values)))
    groups = None if group is None else len(set(map(str, sample.values[str(group.value)])))
    return share_choice(count, groups)


def _notes(others: Sequence[str], warning: str) -> list[str]:
    notes = [warning] if warning else []
    if others:
        notes.append(
            f"Other columns hold texts too: {quoted(others)}; --caption-column names the one to"
            " use."
        )
    return notes

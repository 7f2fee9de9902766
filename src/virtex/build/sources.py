"""The captioned images or objects of both splits, from the settings of the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, assert_never

from virtex.build.observer import SILENT, Observer
from virtex.build.shard_source import Labels, ShardSource, Split
from virtex.config.data import Data
from virtex.config.sources import Source
from virtex.data.contents import WholeSplit
from virtex.data.mixed_order import Mixture
from virtex.data.records import Records
from virtex.data.shards.reader import Shards
from virtex.data.sources.coco import CocoCaptions
from virtex.data.sources.coco_objects import CocoCategories
from virtex.data.sources.drawn_split import Draw, DrawnSplit, Groups, check_apart
from virtex.data.sources.joined import JoinedRecords, source_shard_sizes
from virtex.data.sources.table import TableCaptions
from virtex.data.sources.table_file import split_tables
from virtex.data.sources.table_layout import TableLayout
from virtex.data.sources.text_folder import TextFolder
from virtex.errors import RunError, UserError

T = TypeVar("T")


_NOT_LABELLED = (
    "DATA.FORMAT is labelled, which has neither captions nor categories; it is for MODEL.NAME "
    "image_classification"
)


class ReportedRecords(WholeSplit, Protocol):
    """Records with a report: a line for each finding in their annotations."""

    @property
    def report(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class OpenedSplits:
    """The training and the validation split, and the names of the categories of objects."""

    training: ReportedRecords
    validation: ReportedRecords
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opening:
    """One source that is opened, for data with captions or categories."""

    source: Source
    data: Data
    labels: Labels
    observer: Observer

    @property
    def root(self) -> Path:
        return Path(self.source.root)

    @property
    def layout(self) -> TableLayout:
        source, columns = self.source, self.source.columns
        return TableLayout(
            image=columns.image,
            caption=columns.caption,
            split=columns.split,
            image_id=columns.id,
            group=source.group_column,
            separator=source.separator,
            image_separator=source.image_separator,
            image_directory=source.image_directory or ".",
            encoding=source.encoding,
        )

    def split(self, split: Split) -> ReportedRecords:
        """The records of a split that the data have; raises `UserError`."""
        source, bad = self.source, self.data.on_bad_image
        match source.format:
            case "coco":
                kind = CocoCaptions if self.labels == "captions" else CocoCategories
                return kind(self.root, split, bad)
            case "table":
                return TableCaptions(source.root, split, bad, self.layout)
            case "folder":
                return TextFolder(_directory(self.root, split), bad, source.encoding)
            case "shards":
                return self._shards.split(split)
            case _:
                assert_never(source.format)

    def whole(self) -> ReportedRecords:
        """All records, of which the validation split is drawn; raises `UserError`."""
        source, bad = self.source, self.data.on_bad_image
        self._check_without_validation()
        train = self.root / "train"
        inside = train if train.is_dir() else self.root
        match source.format:
            case "coco":
                return self.split("train")
            case "table":
                return TableCaptions(source.root, None, bad, self.layout)
            case "folder":
                return TextFolder(inside, bad, source.encoding)
            case "shards":
                return self._shards.whole()
            case _:
                assert_never(source.format)

    @property
    def _shards(self) -> ShardSource:
        return ShardSource(self.source, self.data, self.labels, self.observer)

    def _check_without_validation(self) -> None:
        root = self.root
        found: Sequence[Path | str]
        match self.source.format:
            case "coco":
                found = sorted(root.glob("annotations/*_val2017.json"))
            case "table":
                found = split_tables(root, "val")
            case "folder":
                found = [root / "val"]
            case "shards":
                found = self._shards.validation()
            case _:
                assert_never(self.source.format)
        existing = [place for place in found if not isinstance(place, Path) or place.exists()]
        if existing:
            raise UserError(
                f"DATA.VAL_SHARE is {self.source.val_share:g}, to draw a validation split, but"
                f" there is one: {existing[0]}; remove VAL_SHARE (--val-share), or move the split"
                " away"
            )


def open_splits(data: Data, labels: Labels, observer: Observer = SILENT) -> OpenedSplits:
    """Both splits of all sources; raises `UserError`."""
    if data.format == "labelled":
        raise UserError(_NOT_LABELLED)
    sources = data.all_sources
    openings = [_Opening(source, data, labels, observer) for source in sources]
    if not data.sources:
        return _open(openings[0])
    opened = _of_each_source(openings, _open)
    categories = opened[0].categories
    for source, splits in zip(sources, opened, strict=True):
        if splits.categories != categories:
            raise UserError(
                f"DATA.SOURCES: {source.root} lists other categories than {sources[0].root}; they"
                " must be the same, in the same order"
            )
    total = sum(source.weight for source in sources)
    weights = [f", weight {each.weight:g} ({each.weight / total:.1%})" for each in sources]
    training = _joined(sources, [splits.training for splits in opened], weights, categories)
    without = [""] * len(sources)
    validation = _joined(sources, [splits.validation for splits in opened], without, categories)
    return OpenedSplits(training, validation, categories)


def mixture(data: Data, whole: WholeSplit, training: Records) -> Mixture | None:
    """The shares of several sources in `training`, a part of `whole`; None without `SOURCES`."""
    if not isinstance(whole, JoinedRecords):
        return None
    return Mixture(
        names=tuple(source.root for source in data.sources),
        weights=tuple(source.weight for source in data.sources),
        shard_sizes=source_shard_sizes(training, whole),
    )


def caption_records(data: Data, split: str, observer: Observer = SILENT) -> ReportedRecords:
    """A split of the data, or of all their sources, with its captions; raises `UserError`.

    The other split need not exist.
    """
    return _one_split(data, split, "captions", observer)


def category_records(data: Data, split: str) -> tuple[ReportedRecords, tuple[str, ...]]:
    """A split of the data with the categories of its objects, and their names.

    Raises `UserError`.
    """
    records = _one_split(data, split, "categories")
    return records, _categories(records)


def _one_split(
    data: Data, split: str, labels: Labels, observer: Observer = SILENT
) -> ReportedRecords:
    if data.format == "labelled":
        raise UserError(_NOT_LABELLED)
    openings = [_Opening(source, data, labels, observer) for source in data.all_sources]
    if not data.sources:
        return _open_one_split(openings[0], split)
    parts = _of_each_source(openings, lambda opening: _open_one_split(opening, split))
    return _joined(data.sources, parts, [""] * len(parts), ())


def _open_one_split(opening: _Opening, split: str) -> ReportedRecords:
    is_training = split == "train"
    if opening.source.val_share is None:
        return opening.split("train" if is_training else "val")
    splits = _open(opening)
    return splits.training if is_training else splits.validation


def _of_each_source(openings: Sequence[_Opening], open_one: Callable[[_Opening], T]) -> list[T]:
    """What opening each source gives; raises `UserError` with what is wrong with any of them."""
    opened: list[T] = []
    problems: list[str] = []
    for opening in openings:
        try:
            opened.append(open_one(opening))
        except RunError:
            raise
        except UserError as error:
            problems.append(f"the source {opening.source.root}: {error}".replace("\n", "\n  "))
    if len(problems) > 1:
        raise UserError("\n  ".join([f"{len(problems)} problems of DATA.SOURCES:", *problems]))
    if problems:
        raise UserError(f"DATA.SOURCES: {problems[0]}")
    return opened


def _open(opening: _Opening) -> OpenedSplits:
    source = opening.source
    if opening.labels == "categories" and source.format in ("table", "folder"):
        raise UserError(
            f"DATA.FORMAT is {source.format}, which holds captions, and MODEL.NAME"
            " multilabel_classification needs categories; set DATA.FORMAT to coco or shards"
        )
    if source.val_share is not None:
        whole = opening.whole()
        training, validation = Draw(source.val_share, opening.data.val_seed).split(
            source.root,
            whole,
            groups=whole.groups if isinstance(whole, TableCaptions) else None,
            report=whole.report,
            categories=_categories(whole),
        )
        return OpenedSplits(training, validation, training.categories)
    one, other = opening.split("train"), opening.split("val")
    groups = [each.groups for each in (one, other) if isinstance(each, TableCaptions)]
    match groups:
        case [Groups() as training_groups, Groups() as validation_groups]:
            check_apart(source.root, training_groups, validation_groups)
    if _categories(one) != _categories(other):
        raise UserError(
            f"the annotations of {source.root} list other categories for training than for "
            "validation; they must be the same, in the same order"
        )
    return OpenedSplits(one, other, _categories(one))


def _categories(records: ReportedRecords) -> tuple[str, ...]:
    """The names of the categories of objects; empty for captions."""
    kinds = CocoCategories | Shards | DrawnSplit
    return records.categories if isinstance(records, kinds) else ()


def _joined(
    sources: Sequence[Source],
    parts: Sequence[ReportedRecords],
    remarks: Sequence[str],
    categories: tuple[str, ...],
) -> JoinedRecords:
    report = []
    for source, records, remark in zip(sources, parts, remarks, strict=True):
        report.append(f"{source.root}: {len(records):,} images{remark}")
        report += [f"{source.root}: {line}" for line in records.report]
    return JoinedRecords(parts, tuple(report), categories)


def _directory(root: Path, split: Split) -> Path:
    path = root / split
    if path.is_dir():
        return path
    other = ""
    if split == "val":
        other = ", or set DATA.VAL_SHARE (--val-share) to draw it from the training images"
    raise UserError(
        f"DATA.ROOT ({root}) has no directory {split}/ of images with text files; add it{other}"
    )

"""Captions without their images: to train a vocabulary on, and to look at before training."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from virtex.build.sources import ReportedRecords, caption_records
from virtex.config.data import Data
from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.data.remote.store import open_store
from virtex.data.shards.manifest import MANIFEST
from virtex.data.shards.reader import Shards, open_shards
from virtex.data.shards.sample_text import TextFormat
from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames, is_shard, name_splits
from virtex.data.shards.store import cache_directory
from virtex.data.sources.joined import JoinedRecords
from virtex.data.sources.table_file import split_tables
from virtex.data.sources.text_folder import TextFolder
from virtex.files import reading


def training_captions(data: Data) -> ReportedRecords:
    """The training split of the data or of all their sources; none needs a validation split.

    Raises `UserError`.
    """
    if not data.sources:
        return caption_records(data, "train")
    parts = [
        caption_records(data.model_copy(update={"sources": (source,)}), "train")
        for source in data.sources
    ]
    report = [
        f"{source.root}: {line}"
        for source, part in zip(data.sources, parts, strict=True)
        for line in part.report
    ]
    return JoinedRecords(parts, tuple(report))


def open_directory(path: Path, describe: Callable[..., Data] = Data) -> ReportedRecords:
    """The training split of a data set with captions, in any format that is recognised.

    This is a COCO directory, one with the tables train and val or with one table that has a column
    of splits, one with train/ and val/, which hold shards or images with texts, or such a directory
    of one split. `describe` makes settings with the layout of the captions from format, root and
    others. Raises `UserError`.
    """

    def settings(form: Literal["coco", "table", "folder", "shards"], root: Path) -> Data:
        return describe(format=form, root=str(root), on_bad_image="skip")

    if (path / "annotations").is_dir():
        return caption_records(settings("coco", path), "train")
    table = settings("table", path)
    if table.columns.split is not None or split_tables(path, "train"):
        return caption_records(table, "train")
    split = path / "train" if (path / "train").is_dir() else path
    with reading(split):
        names = [file.name for file in split.iterdir()]
    if MANIFEST in names or any(map(is_shard, names)):
        return _shards(settings("shards", split), names)
    return TextFolder(split, "skip", settings("folder", split).encoding)


def _shards(data: Data, names: list[str]) -> Shards:
    """The shards in `DATA.ROOT`, or only those for training if their names tell them apart."""
    cache_dir = cache_directory(data.cache_dir)
    return open_shards(
        open_store(data.root, cache_dir=cache_dir, cache_gb=data.cache_gb),
        "captions",
        data.on_bad_image,
        cache_dir=cache_dir,
        window=data.shuffle_window,
        names=ShardNames("train") if name_splits(names) == {"train", "val"} else ALL_SHARDS,
        form=TextFormat(data.columns.caption, data.encoding),
    )


def captions_of(records: Records, skipped: Callable[[BadImage], object]) -> Iterator[str]:
    """The captions of all records; `skipped` gets the errors of those that cannot be read."""
    for position in range(len(records)):
        try:
            captions = records[position].captions
        except BadImage as error:
            skipped(error)
        else:
            yield from captions

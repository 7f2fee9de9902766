"""Captions without their images: to train a vocabulary on, and to look at before training."""

from collections.abc import Callable, Iterator
from pathlib import Path

from virtex.build.data import ReportedRecords, caption_records
from virtex.config.data import Data
from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.data.shards.manifest import MANIFEST, is_shard
from virtex.data.sources.table_rows import KINDS
from virtex.data.sources.text_folder import TextFolder
from virtex.files import reading


def open_directory(path: Path) -> ReportedRecords:
    """The training split of a data set with captions, in any format that is recognised.

    This is a COCO directory, one with the tables train and val, one with train/ and val/, which
    hold shards or images with texts, or such a directory of one split. Raises `UserError`.
    """
    root = str(path)
    if (path / "annotations").is_dir():
        return caption_records(Data(format="coco", root=root, on_bad_image="skip"), "train")
    if any((path / f"train{kind}").is_file() for kind in KINDS):
        return caption_records(Data(format="table", root=root, on_bad_image="skip"), "train")
    split = path / "train" if (path / "train").is_dir() else path
    with reading(split):
        has_shards = any(is_shard(file.name) or file.name == MANIFEST for file in split.iterdir())
    if has_shards:
        split = split.absolute()
        shards = Data(format="shards", root=str(split.parent), on_bad_image="skip")
        return caption_records(shards, split.name)
    return TextFolder(split, "skip")


def captions_of(records: Records, skipped: Callable[[BadImage], object]) -> Iterator[str]:
    """The captions of all records; `skipped` gets the errors of those that cannot be read."""
    for position in range(len(records)):
        try:
            captions = records[position].captions
        except BadImage as error:
            skipped(error)
        else:
            yield from captions

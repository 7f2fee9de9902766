"""Captions without their images: to train a vocabulary on, and to look at before training."""

from collections.abc import Callable, Iterator
from pathlib import Path

from virtex.build.sources import ReportedRecords, caption_records
from virtex.config.data import Data
from virtex.config.sources import CaptionFormat
from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.data.remote.store import open_store
from virtex.data.shards.manifest import MANIFEST
from virtex.data.shards.reader import Shards, open_shards
from virtex.data.shards.sample_text import TextFormat
from virtex.data.shards.shard_names import ALL_SHARDS, ShardNames, is_shard, name_splits
from virtex.data.shards.store import cache_directory
from virtex.data.sources.table_file import split_tables
from virtex.data.sources.table_rows import KINDS as TABLES
from virtex.data.sources.text_folder import TextFolder
from virtex.errors import UserError
from virtex.files import reading


def open_captions(path: Path, describe: Callable[..., Data] = Data) -> ReportedRecords:
    """The training split of a data set with captions, in any format that is recognised.

    This is a COCO directory, one with the tables train and val or with one table that has a column
    of splits, one with train/ and val/, which hold shards or images with texts, or such a directory
    of one split; or a table of which the validation split is drawn. `describe` makes settings with
    the layout of the captions from format and root. Raises `UserError`.
    """
    form = _format(path, describe)
    data = describe(format=form, root=str(path))
    if form in ("coco", "table") or data.val_share is not None:
        return caption_records(data, "train")
    split = path / "train" if (path / "train").is_dir() else path
    if form == "folder":
        return TextFolder(split, data.on_bad_image, data.encoding)
    return _shards(data.model_copy(update={"root": str(split)}))


def _format(path: Path, describe: Callable[..., Data]) -> CaptionFormat:
    if not path.is_dir():
        if path.suffix.lower() in TABLES:
            return "table"
        raise UserError(
            f"--val-share: {path} is neither a data set nor a table, so no run could draw the same"
            " images; give the data that the run reads"
        )
    if (path / "annotations").is_dir():
        return "coco"
    if split_tables(path, "train") or describe(format="table", root=str(path)).columns.split:
        return "table"
    split = path / "train" if (path / "train").is_dir() else path
    with reading(split):
        names = [file.name for file in split.iterdir()]
    return "shards" if MANIFEST in names or any(map(is_shard, names)) else "folder"


def _shards(data: Data) -> Shards:
    """The shards in `DATA.ROOT`, or only those for training if their names tell them apart."""
    cache_dir = cache_directory(data.cache_dir)
    store = open_store(data.root, cache_dir=cache_dir, cache_gb=data.cache_gb)
    is_split = name_splits(store.list_files() or ()) == {"train", "val"}
    return open_shards(
        store,
        "captions",
        data.on_bad_image,
        cache_dir=cache_dir,
        window=data.shuffle_window,
        names=ShardNames("train") if is_split else ALL_SHARDS,
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

"""Captioned images of a split, to evaluate models with."""

from pathlib import Path
from typing import Literal

from virtex.build.sources import caption_records
from virtex.config.data import Data
from virtex.data.records import Record
from virtex.errors import UserError
from virtex.evaluation.options import naming_options


def captioned_images(
    root: Path, split: str, settings: Data | None = None
) -> tuple[list[Record], tuple[str, ...]]:
    """The records of a split, "train" or "val", and a line for each finding in the annotations.

    The `settings` of a run describe the data in `root`, which otherwise are COCO's or tables with
    well-known columns. Of several sources those of image files are read, one after the other.
    Raises `UserError` for data without captions.
    """
    if settings is not None:
        files = tuple(source for source in settings.sources if source.format != "shards")
        described = settings.model_copy(update={"on_bad_image": "skip", "sources": files})
        records = caption_records(described, split)
        others = [source.root for source in settings.sources if source not in files]
        note = (f"images in shards are not judged: {', '.join(others)}",) if others else ()
        return [records[index] for index in range(len(records))], records.report + note
    if not root.is_dir():
        raise UserError(
            f"--data {root}: no such directory; expected captions in COCO's layout, or a directory "
            "with the tables train and val"
        )
    kind: Literal["coco", "table"] = "coco" if (root / "annotations").is_dir() else "table"
    with naming_options():
        records = caption_records(Data(format=kind, root=str(root), on_bad_image="skip"), split)
    return [records[index] for index in range(len(records))], records.report

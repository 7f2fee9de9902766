"""What a data set gives: records of an image file and what is known of it, by position."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Record:
    """One image, unread, with its captions as they were written, or its categories' indices.

    A data set of captions gives at least one caption and no category; one of objects no caption,
    and categories from 1, ascending, each once, or none where there is no object.
    """

    image_id: int
    path: Path
    captions: tuple[str, ...] = ()
    categories: tuple[int, ...] = ()


class Records(Protocol):
    """A sequence of records that costs loader workers no copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def path(self, index: int, /) -> Path:
        """The image file of a record, without the cost of its captions."""
        ...

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,), all different."""
        ...


def missing_images(records: Records) -> list[Path]:
    """The image files that do not exist or are empty, found without reading any."""
    paths = map(records.path, range(len(records)))
    return [path for path in paths if not _has_content(path)]


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False

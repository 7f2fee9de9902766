"""The image files of a split and their captions in shared memory, for all readers of files.

An image without an id gets a hash of its path below the data's root: the same on every machine and
beside any other images.
"""

import stat
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from virtex.data.contents import content_rows
from virtex.data.images import OnBadImage
from virtex.data.plain_text import has_text
from virtex.data.records import Record
from virtex.data.shared_strings import PackedStrings, hashed, shared
from virtex.errors import UserError

SEVERAL = "\0"
"""What joins the paths of several images of one record; no path contains it."""
BLANK, NULL = 1, 2
"""Why a caption cannot be used: it has no text, or it is null."""


class ImageFiles:
    """The image files of one split, in order of their ids, in shared memory."""

    def __init__(
        self,
        directory: Path,
        names: PackedStrings,
        places: npt.NDArray[np.int64],
        image_ids: npt.NDArray[np.int64],
    ) -> None:
        """Image i is the file `names[places[i]]` below `directory`, with the id `image_ids[i]`.

        A name may be several paths, joined by `SEVERAL`, of images with the same captions.
        """
        self._directory = directory
        self._names = names
        self._places, self._image_ids = shared(places), shared(image_ids)

    def __len__(self) -> int:
        return len(self._image_ids)

    def path(self, index: int) -> Path:
        """The first image file of record `index` (0 … N-1)."""
        return self.paths(index)[0]

    def paths(self, index: int) -> list[Path]:
        """The image files of record `index` (0 … N-1)."""
        names = self._names[int(self._places.numpy()[index])].split(SEVERAL)
        return [self._directory / name for name in names]

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` that do not exist or are empty."""
        paths = chain.from_iterable(map(self.paths, positions))
        return [path for path in paths if not _has_content(path)]

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,), ascending."""
        ids: npt.NDArray[np.int64] = self._image_ids.numpy()
        return ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """(1,): files count as one shard."""
        return np.array([len(self)])


class CaptionedImages(ImageFiles):
    """The records of the images that have a usable caption."""

    def __init__(
        self,
        directory: Path,
        names: PackedStrings,
        captions: PackedStrings,
        *,
        usable: npt.NDArray[np.int64],
        image_ids: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
    ) -> None:
        """Group captions by image, in their order; n ≥ 1 are usable.

        Caption `usable[i]` of `captions` belongs to the image `image_ids[i]`, which is the file
        `names[places[i]]`.
        """
        ids, first, counts = np.unique(image_ids, return_index=True, return_counts=True)
        super().__init__(directory, names, places[first], ids)
        self._captions = captions
        self._order = shared(usable[np.argsort(image_ids, kind="stable")])
        self._ends = shared(np.concatenate([[0], np.cumsum(counts)]))

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._ends.numpy()[index : index + 2]
        image, *others = self.paths(index)
        return Record(
            image_id=int(self._image_ids.numpy()[index]),
            image=image,
            others=tuple(others),
            captions=tuple(self._captions[i] for i in self._order.numpy()[start:end].tolist()),
        )

    @property
    def fingerprint(self) -> str:
        """A hash of image ids and captions."""
        return hashed(self._image_ids, self._order, self._ends, *self._captions.tensors)

    @property
    def content_rows(self) -> npt.NDArray[np.void]:
        """A row of `CONTENT_ROW` for each record, (N,)."""
        captions = list(self._captions)
        ordered = [captions[place] for place in self._order.tolist()]
        ends = pairwise(self._ends.tolist())
        images = None
        if (self._names.tensors[0] == ord(SEVERAL)).any():
            images = (1 + self._names[place].count(SEVERAL) for place in self._places.tolist())
        return content_rows(
            self.image_ids.tolist(), ((ordered[start:end], None) for start, end in ends), images
        )

    @property
    def caption_count(self) -> int:
        """The number of captions of all records."""
        return len(self._order)


def defect(caption: str | None) -> int:
    """`BLANK`, `NULL`, or 0 for a caption with text."""
    if caption is None:
        return NULL
    return 0 if has_text(caption) else BLANK


def check_left_out(path: Path, left_out: Sequence[str], on_bad_image: OnBadImage) -> None:
    """Raise UserError where anything is left out of the file `path`, unless it may be skipped."""
    if left_out and on_bad_image == "error":
        raise UserError(
            f"{path}: {'; '.join(left_out)}. Correct the file, or set DATA.ON_BAD_IMAGE to skip to"
            " train without these"
        )


def similar_file(path: Path) -> Path | None:
    """An existing file whose name differs from a missing one as names often do.

    It has slashes for backslashes, characters for %-codes, no outer blanks, or an extension in
    another case.
    """
    name = str(path)
    names = (name.replace("\\", "/"), unquote(name), name.strip())
    suffixes = (path.with_suffix(path.suffix.lower()), path.with_suffix(path.suffix.upper()))
    others = (other for other in (*map(Path, names), *suffixes) if other != path)
    return next(filter(_has_content, others), None)


def _has_content(path: Path) -> bool:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0

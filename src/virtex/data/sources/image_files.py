"""The image files of a split, in shared memory: what COCO's, tables' and folders' records are."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from virtex.data.records import missing_files
from virtex.data.shared_strings import PackedStrings, shared

IMAGE_EXTENSIONS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("jp2", "ppm", "pgm", "avif"),
    )
)
"""How the names of image files end, in lower case, wherever the name is all that is known."""


class ImageFiles:
    """The image files of one split, in order of their ids, in shared memory."""

    def __init__(
        self,
        directory: Path,
        names: PackedStrings,
        places: npt.NDArray[np.int64],
        image_ids: npt.NDArray[np.int64],
    ) -> None:
        """Image i has the name at `places[i]` in `names`, and the id `image_ids[i]`."""
        self._directory = directory
        self._names = names
        self._places, self._image_ids = shared(places), shared(image_ids)

    def __len__(self) -> int:
        return len(self._image_ids)

    def path(self, index: int) -> Path:
        """The image file of record `index` (0 … N-1)."""
        return self._directory / self._names[int(self._places.numpy()[index])]

    def missing(self, positions: Iterable[int]) -> list[Path]:
        """The image files at `positions` that are not there or empty."""
        return missing_files(map(self.path, positions))

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """The id of each record, (N,), ascending."""
        ids: npt.NDArray[np.int64] = self._image_ids.numpy()
        return ids

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """One for all."""
        return np.array([len(self)])

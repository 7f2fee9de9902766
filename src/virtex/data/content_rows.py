"""What of a record counts as its content: its id and its captions or categories, not its image.

A record is the JSON that `virtex pack` writes of it, so that a data set and the shards packed from
it have equal rows; those of shards are in their indexes.
"""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from virtex.data.shards.sample_text import written_text

CONTENT_ROW = np.dtype([("image_id", "<i8"), ("text_bytes", "<u4"), ("text_crc32", "<u4")])


Labels = tuple[Sequence[str], Sequence[int] | None]
"""A record's captions, and its categories in a data set of objects."""


def content_rows(image_ids: Sequence[int], labels: Iterable[Labels]) -> npt.NDArray[np.void]:
    """A row of `CONTENT_ROW` for each record, (N,), in their order."""
    rows = []
    for image_id, (captions, categories) in zip(image_ids, labels, strict=True):
        text = written_text(image_id, captions, categories)
        rows.append((image_id, len(text), zlib.crc32(text)))
    return np.array(rows, CONTENT_ROW)

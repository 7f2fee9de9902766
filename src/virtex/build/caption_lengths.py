"""The lengths of captions in tokens, and what a limit cuts of them."""

from collections.abc import Iterator

import numpy as np

from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.tasks.caption_tokens import CaptionTokens

_RUNS, _RUN = 20, 100
"""How many runs of so many records are measured, evenly spaced, so that few indexes are read."""
_QUANTILES = (50, 90, 99)


def caption_lengths(records: Records, captions: CaptionTokens) -> str | None:
    """A line with quantiles of the lengths, and the shares of captions and tokens that are cut.

    Of large data sets, 2,000 records are measured. None if none of them can be read.
    """
    texts = list(_texts(records, single=captions.single_caption))
    if not texts:
        return None
    lengths = np.array([captions.count_tokens(text) for text in texts], np.int64)
    limit = captions.max_length
    quantiles = np.percentile(lengths, _QUANTILES, method="inverted_cdf").tolist()
    shown = ", ".join(
        f"{percent}% have at most {int(length)}"
        for percent, length in zip(_QUANTILES, quantiles, strict=True)
    )
    long = (lengths > limit).mean()
    line = (
        f"{len(texts):,} captions in tokens: {shown}, the longest {lengths.max()};"
        f" DATA.MAX_CAPTION_LENGTH {limit}"
    )
    if captions.whole_sentences:
        return f"{line} replaces {long:.1%} by some of their sentences"
    cut = np.maximum(lengths - limit, 0).sum() / lengths.sum()
    return f"{line} cuts {long:.1%} of them, and {cut:.1%} of all tokens"


def _texts(records: Records, *, single: bool) -> Iterator[str]:
    starts = range(0, len(records), _RUN)
    if len(starts) > _RUNS:
        starts = np.linspace(0, len(records) - _RUN, _RUNS).astype(int).tolist()
    for start in starts:
        for position in range(start, min(start + _RUN, len(records))):
            try:
                captions = records[position].captions
            except BadImage:  # training reports it, or skips it
                continue
            yield from captions[:1] if single else captions

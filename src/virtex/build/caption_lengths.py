"""The lengths of captions in tokens, and what a limit cuts of them."""

from collections.abc import Iterator, Sequence

import numpy as np

from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.tasks.caption_tokens import CaptionTokens

_RUNS, _RUN = 20, 100
"""How many runs of so many records are measured, evenly spaced, so that few indexes are read."""
_QUANTILES = (50, 90, 99)


def describe_captions(records: Records, captions: CaptionTokens) -> list[str]:
    """Lines with quantiles of the lengths, and the shares of captions and tokens that are cut.

    Another line if no image has as many captions as are to be drawn. Of large data sets, 2,000
    records are measured. Empty if none of them can be read.
    """
    found = list(_captions(records, single=captions.single_caption))
    if not found:
        return []
    lines = [_lengths([text for texts in found for text in texts], captions)]
    wanted, most = captions.per_image, max(map(len, found))
    if wanted is not None and wanted > max(most, 1):
        lines.append(
            f"DATA.CAPTIONS_PER_IMAGE is {wanted}, and none of {len(found):,} images has more than "
            f"{most}; each gives all captions that it has"
        )
    return lines


def _lengths(texts: Sequence[str], captions: CaptionTokens) -> str:
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


def _captions(records: Records, *, single: bool) -> Iterator[Sequence[str]]:
    """The captions of each measured image."""
    starts = range(0, len(records), _RUN)
    if len(starts) > _RUNS:
        starts = np.linspace(0, len(records) - _RUN, _RUNS).astype(int).tolist()
    for start in starts:
        for position in range(start, min(start + _RUN, len(records))):
            try:
                captions = records[position].captions
            except BadImage:  # training reports it, or skips it
                continue
            yield captions[:1] if single else captions

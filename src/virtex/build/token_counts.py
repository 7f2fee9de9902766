"""How many training images have each token in a caption, counted once when a run starts.

Each process counts its share. Of more than a million images, a million in evenly spaced runs are
counted, as the weights of tokens follow from them closely enough. Of remote shards nothing is
counted, as all of them would be fetched for it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from virtex.build.data import PretrainingData
from virtex.build.model import task_settings
from virtex.config.schema import Config
from virtex.data.images import BadImage
from virtex.data.records import Records
from virtex.distributed.world import World
from virtex.errors import UserError
from virtex.tasks.base import Objective
from virtex.tasks.caption_tokens import CaptionTokens, caption_tokens
from virtex.tasks.label_targets import LabelCounts
from virtex.text.tokenizer import Tokenizer

MOST_IMAGES = 1_000_000
_RUN = 1_000
"""Images that lie beside each other, and so in one shard, are counted together."""


class TokenCounts(NamedTuple):
    """The number of images that were counted, and of those with each token, (V,) int64."""

    images: int
    images_with: Tensor


def check_countable(config: Config, data: PretrainingData) -> None:
    """Raise `UserError` if a new run needs counts of tokens that cannot be had."""
    auxiliary = config.model.auxiliary.tokens.weight > 0
    if data.remote is not None and (auxiliary or config.model.token_weighting == "idf"):
        key = "AUXILIARY.TOKENS.WEIGHT" if auxiliary else "TOKEN_WEIGHTING"
        value = "0" if auxiliary else "uniform"
        raise UserError(
            f"MODEL.{key} needs to know how many images have each token, and counting would fetch "
            f"all of the remote shards; copy the shards to a disk, or set {key} to {value}"
        )


def count_for(
    objective: Objective, data: PretrainingData, world: World, report: Callable[[str], None]
) -> tuple[str, ...]:
    """Count tokens if `objective` needs that, and give it the counts; returns lines for the log.

    `report` is called with a line on the progress.
    """
    needed = [part for part in objective.modules() if isinstance(part, LabelCounts)]
    if not needed:
        return ()
    assert isinstance(data.vocabulary, Tokenizer)
    captions = caption_tokens(data.vocabulary, task_settings(data.config), True)
    records = data.training.records
    with world.shared_errors():
        counted = count_tokens(records, captions, world.rank, world.size, report)
    images = int(world.sum(torch.tensor(counted.images)))
    images_with = world.sum(counted.images_with)
    for part in needed:
        part.put(images, images_with)
    used = int((images_with > 0).sum())
    return (
        f"weights of tokens: counted in {images:,} of {len(records):,} training images, which "
        f"have {used:,} of the {len(images_with):,} tokens",
    )


def count_tokens(
    records: Records,
    captions: CaptionTokens,
    rank: int,
    size: int,
    report: Callable[[str], None],
) -> TokenCounts:
    """The share of process `rank` of `size` in the counts."""
    starts = range(0, len(records), _RUN)
    if len(records) > MOST_IMAGES:
        spaced = np.linspace(0, len(records) - _RUN, MOST_IMAGES // _RUN)
        starts = spaced.astype(int).tolist()
    images, images_with = 0, np.zeros(captions.tokenizer.vocab_size, np.int64)
    share = starts[rank::size]
    for number, start in enumerate(share):
        report(f"counting tokens: {number} of {len(share)} parts of the training images")
        for position in range(start, min(start + _RUN, len(records))):
            try:
                record = records[position]
            except BadImage:  # training reports it, or skips it
                continue
            images += 1
            images_with[captions.all_tokens(record)] += 1
    return TokenCounts(images, torch.from_numpy(images_with))

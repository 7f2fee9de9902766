"""Losses over the captions of a batch, of which an image may have several.

The grid of an image is projected, and its keys and values are computed, once for all its captions.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from virtex.models.attention import KeysValues
from virtex.models.dropout import draw_dropout
from virtex.tasks.base import Batch

GridMemory = tuple[KeysValues, ...]
"""The keys and values of a grid in each layer of a head, of B images or for N captions."""

CaptionLosses = Callable[[Sequence[GridMemory], Batch], dict[str, Tensor]]
"""The sum of each loss, given what each head attends to for N captions, and their tensors."""


def sum_over_captions(
    module: nn.Module, memories: Sequence[GridMemory], batch: Batch, losses: CaptionLosses
) -> dict[str, Tensor]:
    """The sums of `losses` over all captions, given what each head attends to in the B images.

    At most B captions are computed at a time, and all but the last of them again in the backward
    pass, so that several captions an image take no more memory than one. Sets the keys from which
    dropouts in `module` derive their masks.
    """
    counts = batch.get("captions_per_image")
    if counts is None:
        draw_dropout(module, batch["dropout_key"])
        return losses(memories, batch)
    images, captions = len(batch["image"]), len(batch["dropout_key"])
    image_of = torch.arange(images, device=counts.device)
    image_of = image_of.repeat_interleave(counts, output_size=captions)

    def of_chunk(start: int) -> dict[str, Tensor]:
        rows = slice(start, start + images)
        part = {name: tensor[rows] for name, tensor in batch.items() if len(tensor) == captions}
        draw_dropout(module, part["dropout_key"])
        return losses([_of_images(memory, image_of[rows]) for memory in memories], part)

    *starts, last = range(0, captions, images)
    sums = [
        checkpoint(of_chunk, start, use_reentrant=False, preserve_rng_state=False)
        for start in starts
    ]
    sums.append(of_chunk(last))
    return {name: torch.stack([chunk[name] for chunk in sums]).sum() for name in sums[0]}


def _of_images(memory: GridMemory, images: Tensor) -> GridMemory:
    """The keys and values for captions of these images, (N,) int64."""
    return tuple(
        (keys.index_select(0, images), values.index_select(0, images)) for keys, values in memory
    )

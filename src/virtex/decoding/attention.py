"""Where a decoder looks in the image for each word of a caption, as the VirTex paper shows."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.errors import UserError
from virtex.models.decoder import TransformerDecoder
from virtex.text.tokenizer import Tokenizer
from virtex.text.words import split_words


@dataclass(frozen=True)
class WordAttention:
    """The words of a caption, and for each the map of each head: (words, heads, h, w).

    A map is ≥ 0 and sums to 1 over the h·w positions of the grid.
    """

    words: tuple[str, ...]
    maps: Tensor


def word_attention(
    textual: TransformerDecoder,
    tokenizer: Tokenizer,
    grid: Tensor,
    tokens: Sequence[int],
    *,
    layer: int = -1,
) -> WordAttention:
    """The attention of one `layer` (from 0, or from the end with -1) as it predicts each word.

    `textual` is in evaluation mode; `grid` is one image's (C, h, w) features; `tokens` are a
    caption's, without [SOS] and [EOS]. A piece's map is that of the token before it, whose output
    predicts the piece; a word's map is the mean of its pieces'.

    Raises `UserError` for a layer that there is not, and for more tokens than there are positions.
    """
    _check(textual, tokens, layer)
    words = split_words(tokenizer, tokens)
    read = torch.tensor([[tokenizer.sos_index, *tokens[:-1]]], device=grid.device)  # (1, T)
    lengths = torch.tensor([read.shape[1]], device=grid.device)
    projected = textual.project(grid.unsqueeze(0))
    weights = textual.cross_attention(projected, read, lengths)[0, layer]  # (heads, T, S)
    maps = [weights[:, list(word.places)].mean(dim=1) for word in words]  # each (heads, S)
    stacked = torch.stack(maps) if maps else weights.new_empty(0, *weights[:, 0].shape)
    return WordAttention(
        words=tuple(word.text for word in words),
        maps=stacked.view(*stacked.shape[:2], *grid.shape[1:]),
    )


def _check(textual: TransformerDecoder, tokens: Sequence[int], layer: int) -> None:
    layers = len(textual.transformer.layers)
    if not -layers <= layer < layers:
        raise UserError(
            f"layer {layer}: the head has {layers}; give 0 to {layers - 1}, or -1 for the last"
        )
    positions = textual.embedding.positions.num_embeddings
    if len(tokens) > positions:
        raise UserError(f"the caption has {len(tokens)} tokens; the head reads at most {positions}")

"""The image regions to which a decoder attends for each word, as shown in the VirTex paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from virtex.errors import UserError
from virtex.models.decoder import TransformerDecoder
from virtex.text.scripts import is_mark, is_unspaced
from virtex.text.tokenizer import Tokenizer

_WORD_START = "▁"


@dataclass(frozen=True)
class Word:
    """A word, and the positions of its pieces among the tokens."""

    text: str
    positions: tuple[int, ...]


@dataclass(frozen=True)
class WordAttention:
    """The words of a caption and, for each word, the map of each head: (words, heads, h, w).

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
    """The attention of one `layer` (0 is the first, -1 the last) when each word is predicted.

    `textual` is in evaluation mode; `grid` (C, h, w) has the features of one image; `tokens` are a
    caption without [SOS] and [EOS]. The map of a piece is taken at the token before it, whose
    output predicts the piece; the map of a word is the mean over its pieces.

    Raises `UserError` for a layer that does not exist, and for more tokens than positions.
    """
    _check(textual, tokens, layer)
    words = split_words(tokenizer, tokens)
    read = torch.tensor([[tokenizer.sos_index, *tokens[:-1]]], device=grid.device)  # (1, T)
    lengths = torch.tensor([read.shape[1]], device=grid.device)
    projected = textual.project(grid.unsqueeze(0))
    weights = textual.cross_attention_weights(projected, read, lengths)[0, layer]  # (heads, T, S)
    maps = [weights[:, list(word.positions)].mean(dim=1) for word in words]  # each (heads, S)
    stacked = torch.stack(maps) if maps else weights.new_empty(0, *weights[:, 0].shape)
    return WordAttention(
        words=tuple(word.text for word in words),
        maps=stacked.view(*stacked.shape[:2], *grid.shape[1:]),
    )


def split_words(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Word]:
    """The words of `tokenizer.decode(ids)` in order; no word contains special or unknown tokens.

    The first piece starts a word, and so does each piece with a leading ▁. In scripts without
    spaces, each piece is a word, with the marks that follow it.
    """
    groups: list[list[int]] = []
    before = _WORD_START
    for position, index in enumerate(ids):
        if index in tokenizer.special_ids:
            continue
        piece = tokenizer.token(index)
        if not groups or piece.startswith(_WORD_START) or _is_apart(before, piece):
            groups.append([])
        groups[-1].append(position)
        before = piece
    words = [Word(tokenizer.decode([ids[p] for p in group]), tuple(group)) for group in groups]
    return [word for word in words if word.text]  # a lone ▁ is not a word


def _is_apart(before: str, piece: str) -> bool:
    """Whether a piece and the one before it are words of scripts without spaces."""
    unspaced = is_unspaced(before[-1]) or is_unspaced(piece[0])
    return unspaced and not is_mark(piece[0]) and before != _WORD_START


def _check(textual: TransformerDecoder, tokens: Sequence[int], layer: int) -> None:
    layers = len(textual.transformer.layers)
    if not -layers <= layer < layers:
        raise UserError(
            f"layer {layer}: the head has {layers}; give 0 to {layers - 1}, or -1 for the last"
        )
    positions = textual.embedding.positions.num_embeddings
    if len(tokens) > positions:
        raise UserError(f"the caption has {len(tokens)} tokens; the head reads at most {positions}")

"""The textual head: a transformer decoder over a visual grid (VirTex, section 3.2).

Two ways to the same logits: `forward` for all tokens at once, and `prefill` + `decode_step` for one
token at a time with a cache of keys and values that is passed in and out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from virtex.models.attention import Attention, DecoderLayer, KeysValues
from virtex.models.dropout import KeyedDropout


@dataclass(frozen=True)
class KVCache:
    """The keys and values of each layer during decoding.

    `grid` has those of B images, `text` those of B·beams rows, or None before the first token;
    `length` counts the tokens so far.
    """

    grid: tuple[KeysValues, ...]
    text: tuple[KeysValues | None, ...]
    length: int = 0

    def select(self, rows: Tensor) -> "KVCache":
        """The cache whose row i is this one's row `rows[i]` (int64); `grid` is unchanged."""
        text = tuple(None if kv is None else (kv[0][rows], kv[1][rows]) for kv in self.text)
        return replace(self, text=text)


class TokenEmbedding(nn.Module):
    """Word plus learned position embedding, layer norm, dropout; padding tokens become zero."""

    def __init__(
        self, vocab_size: int, width: int, max_length: int, dropout: float, padding_index: int
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, width, padding_idx=padding_index)
        self.positions = nn.Embedding(max_length, width)
        self.layer_norm = nn.LayerNorm(width, eps=1e-8)
        self.dropout = KeyedDropout(dropout)
        self.padding_index = padding_index

    def forward(self, tokens: Tensor, first_position: int = 0) -> Tensor:
        """Tokens (B, T) int64, at positions from `first_position` on, to (B, T, D)."""
        last = first_position + tokens.shape[1]
        x = self.words(tokens) + self.positions.weight[first_position:last]
        x = self.dropout(self.layer_norm(x))
        masked: Tensor = x * (tokens != self.padding_index).unsqueeze(-1).to(x.dtype)
        return masked


class Transformer(nn.Module):
    """A stack of decoder layers of one shape; pre-norm layers are followed by a last layer norm."""

    def __init__(
        self,
        *,
        layers: int,
        width: int,
        heads: int,
        feedforward: int,
        dropout: float,
        norm_first: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, feedforward, dropout, norm_first) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width) if norm_first else nn.Identity()


class TransformerDecoder(nn.Module):
    """Logits at each position of a caption, given an image's grid.

    With a causal mask it attends to earlier tokens only and predicts the next one; with any other
    it attends to all tokens and predicts the token at each position.

    `visual_projection` is linear from C to D, `output` linear from D to V (see `tied_output`). Two
    decoders that differ only in their `transformer` may share the other three parts.
    """

    def __init__(
        self,
        visual_projection: nn.Linear,
        embedding: TokenEmbedding,
        transformer: Transformer,
        output: nn.Linear,
    ) -> None:
        super().__init__()
        self.visual_projection = visual_projection
        self.embedding = embedding
        self.transformer = transformer
        self.output = output

    def project(self, grid: Tensor) -> Tensor:
        """(B, C, h, w) to (B, h·w, D)."""
        projected: Tensor = self.visual_projection(grid.flatten(2).transpose(1, 2))
        return projected

    if TYPE_CHECKING:  # the call of `nn.Module` is untyped

        def __call__(self, projected: Tensor, tokens: Tensor, mask: Tensor) -> Tensor: ...

    def forward(self, projected: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, T, V) at each position of `tokens`.

        `projected` comes from `project`; `tokens` is (B, T) int64, padded on the right; `mask`,
        bool and broadcastable to (B, 1, T, T), is true where a position (third axis) may attend to
        another (last axis): see `causal_mask` and `padding_mask`.
        """
        return self.logits(self.keys_values(projected), tokens, mask)

    def keys_values(self, projected: Tensor) -> tuple[KeysValues, ...]:
        """The keys and values of a projected grid (B, S, D) in each layer."""
        layers = map(_decoder_layer, self.transformer.layers)
        return tuple(layer.multihead_attn.keys_values(projected) for layer in layers)

    def logits(self, grid: Sequence[KeysValues], tokens: Tensor, mask: Tensor) -> Tensor:
        """As `forward`, given the `keys_values` of the grid."""
        x = self.embedding(tokens)
        for layer, layer_grid in zip(self.transformer.layers, grid, strict=True):
            x = layer(x, layer_grid, mask)
        logits: Tensor = self.output(self.transformer.norm(x))
        return logits

    def cross_attention_weights(self, projected: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """The attention weights of each of L layers over the S = h·w grid positions.

        (B, L, heads, T, S) whose rows sum to 1, and are zero at padding. The mask is causal;
        `lengths` (B,) int64 counts the tokens of a row that are not padding. In training mode
        dropout affects the preceding layers, not the weights themselves.
        """
        mask = causal_mask(lengths, tokens.shape[1])
        x = self.embedding(tokens)
        weights: list[Tensor] = []
        for layer, grid in zip(self.transformer.layers, self.keys_values(projected), strict=True):
            x = layer(x, grid, mask, weights)
        padding = torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
        return torch.stack(weights, dim=1).masked_fill(padding[:, None, None, :, None], 0.0)

    def prefill(self, grid: Tensor) -> KVCache:
        """The cache before the first token, for the images of a grid (B, C, h, w)."""
        keys_values = self.keys_values(self.project(grid))
        return KVCache(grid=keys_values, text=(None,) * len(keys_values))

    def decode_step(self, tokens: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        """Logits (N, V) after one more token per row, (N,) int64, and the longer cache.

        The N rows are equally many beams of each image, those of an image adjacent.
        """
        x = self.embedding(tokens.unsqueeze(1), first_position=cache.length)
        text = []
        layers = zip(self.transformer.layers, cache.text, cache.grid, strict=True)
        for layer, layer_text, layer_grid in layers:
            x, longer = _decoder_layer(layer).decode_step(x, layer_text, layer_grid)
            text.append(longer)
        logits: Tensor = self.output(self.transformer.norm(x.squeeze(1)))
        return logits, replace(cache, text=tuple(text), length=cache.length + 1)


def padding_mask(lengths: Tensor, positions: int) -> Tensor:
    """(B, 1, 1, T) bool: every position may attend to all tokens of its row, but not to padding."""
    mask: Tensor = torch.arange(positions, device=lengths.device) < lengths[:, None, None, None]
    return mask


def causal_mask(lengths: Tensor, positions: int) -> Tensor:
    """(B, 1, T, T) bool: a position may attend to itself and to those before it."""
    steps = torch.arange(positions, device=lengths.device)
    return padding_mask(lengths, positions) & (steps[:, None] >= steps)


@dataclass(frozen=True)
class DecoderSettings:
    """Sizes and initialisation of a textual head."""

    feature_size: int
    vocab_size: int
    max_length: int
    padding_index: int
    layers: int
    width: int
    heads: int
    feedforward: int
    norm_first: bool
    dropout: float
    initial_std: float


def decoder_pair(settings: DecoderSettings) -> tuple[TransformerDecoder, TransformerDecoder]:
    """A forward and a backward head, which share all but their transformers.

    Freshly initialised from torch's random state; both are drawn, whichever is used.
    """

    def transformer() -> Transformer:
        return Transformer(
            layers=settings.layers,
            width=settings.width,
            heads=settings.heads,
            feedforward=settings.feedforward,
            dropout=settings.dropout,
            norm_first=settings.norm_first,
        )

    projection = nn.Linear(settings.feature_size, settings.width)
    embedding = TokenEmbedding(
        settings.vocab_size,
        settings.width,
        settings.max_length,
        settings.dropout,
        settings.padding_index,
    )
    output = tied_output(embedding)
    forward = TransformerDecoder(projection, embedding, transformer(), output)
    backward = TransformerDecoder(projection, embedding, transformer(), output)
    initialise(forward, settings.initial_std)
    initialise(backward.transformer, settings.initial_std)
    return forward, backward


def tied_output(embedding: TokenEmbedding) -> nn.Linear:
    """The output layer D to V that shares the word embedding's weight and has its own bias."""
    vocab_size, width = embedding.words.weight.shape
    output = nn.Linear(width, vocab_size)
    output.weight = embedding.words.weight
    return output


def initialise(module: nn.Module, std: float) -> None:
    """Draw the weights of linear, embedding and attention modules from N(0, `std`); zero biases."""
    for part in module.modules():
        match part:
            case nn.Linear():
                nn.init.normal_(part.weight, std=std)
                nn.init.zeros_(part.bias)
            case Attention():
                nn.init.normal_(part.in_proj_weight, std=std)
                nn.init.zeros_(part.in_proj_bias)
            case nn.Embedding():
                nn.init.normal_(part.weight, std=std)
    # Last, as initialising the output layer redraws the tied weight.
    for part in module.modules():
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            with torch.no_grad():
                part.weight[part.padding_idx].zero_()


def _decoder_layer(module: nn.Module) -> DecoderLayer:
    assert isinstance(module, DecoderLayer)
    return module

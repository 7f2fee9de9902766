"""The textual head: a transformer decoder over a visual grid (VirTex, section 3.2).

Two ways to the same logits: `forward` for all tokens at once, and `prefill` + `decode_step` for one
token at a time with a cache of keys and values that is passed in and out.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from virtex.models.attention import Attention, DecoderLayer, KeysValues
from virtex.models.dropout import KeyedDropout


@dataclass(frozen=True)
class KVCache:
    """The keys and values of each layer during decoding.

    `grid`: those of B images; `text`: those of the B·beams rows, None before the first token;
    `length`: the number of tokens so far.
    """

    grid: tuple[KeysValues, ...]
    text: tuple[KeysValues | None, ...]
    length: int = 0

    def select(self, rows: Tensor) -> "KVCache":
        """The cache whose row i is this one's row `rows[i]` (int64); images stay as they are."""
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
        """(B, T) int64 at positions `first_position`, … to (B, T, D)."""
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

    A `causal` decoder attends to earlier tokens only and predicts the next one; any other attends
    to all tokens and predicts the token at its own position.

    `visual_projection` is linear from C to D, `output` linear from D to V (see `tied_output`). Two
    decoders that differ only in their `transformer` may share the other three parts.
    """

    def __init__(
        self,
        visual_projection: nn.Linear,
        embedding: TokenEmbedding,
        transformer: Transformer,
        output: nn.Linear,
        *,
        causal: bool = True,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.visual_projection = visual_projection
        self.embedding = embedding
        self.transformer = transformer
        self.output = output

    def project(self, grid: Tensor) -> Tensor:
        """(B, C, h, w) to (B, h·w, D)."""
        projected: Tensor = self.visual_projection(grid.flatten(2).transpose(1, 2))
        return projected

    def forward(self, projected: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of `tokens`, or at its position.

        `projected` comes from `project`; `tokens` is (B, T) int64, padded on the right; `lengths`
        (B,) int64 counts the tokens of each row that are not padding.
        """
        mask = self._mask(tokens, lengths)
        x = self.embedding(tokens)
        for layer in self.transformer.layers:
            x = layer(x, projected, mask)
        logits: Tensor = self.output(self.transformer.norm(x))
        return logits

    def cross_attention_weights(self, projected: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Weights over the S = h·w grid positions at each token of each of L layers.

        Arguments as for `forward`; (B, L, heads, T, S) whose rows sum to 1, and are zero at
        padding. In training mode dropout affects the preceding layers, not the weights themselves.
        """
        mask = self._mask(tokens, lengths)
        x = self.embedding(tokens)
        weights = []
        for layer in self.transformer.layers:
            x, of_layer = _decoder_layer(layer).forward_with_weights(x, projected, mask)
            weights.append(of_layer)
        padding = torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
        return torch.stack(weights, dim=1).masked_fill(padding[:, None, None, :, None], 0.0)

    def _mask(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """True where a token (second to last axis) may attend (last axis)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        mask = positions < lengths[:, None, None, None]  # (B, 1, 1, T)
        # (B, 1, T, T)
        return mask & (positions[:, None] >= positions) if self.causal else mask

    def prefill(self, grid: Tensor) -> KVCache:
        """The cache before the first token, for the images of a grid (B, C, h, w).

        Only for a causal decoder: any other needs all tokens at once.
        """
        assert self.causal
        projected = self.project(grid)
        layers = [_decoder_layer(layer) for layer in self.transformer.layers]
        keys_values = tuple(layer.multihead_attn.keys_values(projected) for layer in layers)
        return KVCache(grid=keys_values, text=(None,) * len(layers))

    def decode_step(self, tokens: Tensor, cache: KVCache) -> tuple[Tensor, KVCache]:
        """Logits (N, V) after one more token per row, (N,) int64, and the longer cache.

        The rows of an image's beams are adjacent: N is the number of images times that of beams.
        """
        x = self.embedding(tokens.unsqueeze(1), first_position=cache.length)
        text = []
        for layer, of_text, of_grid in zip(
            self.transformer.layers, cache.text, cache.grid, strict=True
        ):
            x, longer = _decoder_layer(layer).decode_step(x, of_text, of_grid)
            text.append(longer)
        logits: Tensor = self.output(self.transformer.norm(x.squeeze(1)))
        return logits, replace(cache, text=tuple(text), length=cache.length + 1)


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

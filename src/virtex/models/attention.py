"""Multi-head attention and one layer of a transformer decoder (Vaswani et al., 2017)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from virtex.models.dropout import KeyedDropout

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each (B, heads, S, D / heads)."""


class Attention(nn.Module):
    """Multi-head attention over D = `width`, with the parameters of `nn.MultiheadAttention`.

    Its projections can be called separately, so that a decoder can cache keys and values.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = KeyedDropout(dropout)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, D) to three of (B, heads, T, D / heads)."""
        query, key, value = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return self._split(query), self._split(key), self._split(value)

    def queries(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, heads, T, D / heads)."""
        width = x.shape[-1]
        return self._split(F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width]))

    def keys_values(self, x: Tensor) -> KeysValues:
        """Keys and values of (B, S, D)."""
        width = x.shape[-1]
        both = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])
        key, value = both.chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def attend(self, query: Tensor, keys_values: KeysValues, mask: Tensor | None = None) -> Tensor:
        """(B, heads, T, D / heads) over the keys and values of S positions to (B, T, D).

        `mask` is bool, broadcast to (B, heads, T, S): True where a query may attend.
        """
        if self.training and self.dropout.p > 0:
            key, value = keys_values
            mixed = self.dropout(self.weights(query, key, mask)) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, *keys_values, attn_mask=mask)
        mixed = mixed.transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(mixed)
        return output

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """The attention weights of each query over S positions, before any dropout.

        (B, heads, T, D / heads) and (B, heads, S, D / heads) to (B, heads, T, S), ≥ 0, whose rows
        sum to 1.
        """
        products = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if mask is not None:
            products = products.masked_fill(~mask, -torch.inf)
        return torch.softmax(products, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Self-attention, cross-attention to the grid, feed-forward; each with dropout and a residual.

    `norm_first` puts layer norm before each part (pre-norm) instead of after the sum (post-norm).
    """

    def __init__(
        self, width: int, heads: int, feedforward: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = KeyedDropout(dropout)
        self.norm_first = norm_first

    def forward(
        self, x: Tensor, grid: KeysValues, mask: Tensor, weights: list[Tensor] | None = None
    ) -> Tensor:
        """All tokens: x (B, T, D), keys and values of the grid, mask as in `Attention.attend`.

        Cross-attention weights (B, heads, T, S), before any dropout, are appended to `weights`.
        """

        def self_attention(y: Tensor) -> Tensor:
            query, key, value = self.self_attn.queries_keys_values(y)
            return self.self_attn.attend(query, (key, value), mask)

        def cross_attention(y: Tensor) -> Tensor:
            query = self.multihead_attn.queries(y)
            if weights is not None:
                weights.append(self.multihead_attn.weights(query, grid[0]))
            return self.multihead_attn.attend(query, grid)

        return self._residuals(x, self_attention, cross_attention)

    def decode_step(
        self, x: Tensor, text: KeysValues | None, grid: KeysValues
    ) -> tuple[Tensor, KeysValues]:
        """One token per row: x (N, 1, D), where the N rows are N / B beams of each of B images.

        `text` holds the cached keys and values of the N rows (None at the first token), `grid`
        those of the B images. Returns the new x, and `text` with the new token appended.
        """
        images = grid[0].shape[0]
        longer: list[KeysValues] = []

        def self_attention(y: Tensor) -> Tensor:
            query, key, value = self.self_attn.queries_keys_values(y)
            if text is not None:
                key = torch.cat((text[0], key), dim=2)
                value = torch.cat((text[1], value), dim=2)
            longer.append((key, value))
            return self.self_attn.attend(query, (key, value))

        def cross_attention(y: Tensor) -> Tensor:
            # The beams of an image are queries to the same keys and values.
            query = self.multihead_attn.queries(y.view(images, -1, y.shape[-1]))
            return self.multihead_attn.attend(query, grid).view_as(y)

        x = self._residuals(x, self_attention, cross_attention)
        return x, longer[0]

    def _residuals(
        self,
        x: Tensor,
        self_attention: Callable[[Tensor], Tensor],
        cross_attention: Callable[[Tensor], Tensor],
    ) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(self_attention(self.norm1(x)))
            x = x + self.dropout(cross_attention(self.norm2(x)))
            x = x + self.dropout(self._feedforward(self.norm3(x)))
        else:
            x = self.norm1(x + self.dropout(self_attention(x)))
            x = self.norm2(x + self.dropout(cross_attention(x)))
            x = self.norm3(x + self.dropout(self._feedforward(x)))
        return x

    def _feedforward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear2(self.dropout(F.gelu(self.linear1(x))))
        return output

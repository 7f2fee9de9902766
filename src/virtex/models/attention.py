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

    Its projections can be called apart, so that a decoder can keep keys and values.
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
        """(B, S, D) to keys and values."""
        width = x.shape[-1]
        both = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:])
        key, value = both.chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def attend(self, query: Tensor, memory: KeysValues, mask: Tensor | None = None) -> Tensor:
        """(B, heads, T, D / heads) over a memory of S positions to (B, T, D).

        `mask` is bool, broadcast to (B, heads, T, S): True where a query may look.
        """
        if self.training and self.dropout.p > 0:
            key, value = memory
            mixed = self.dropout(self.weights(query, key, mask)) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, *memory, attn_mask=mask)
        mixed = mixed.transpose(1, 2).flatten(2)
        output: Tensor = self.out_proj(mixed)
        return output

    def weights(self, query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
        """How much each query takes from each of S positions, as `attend` without dropout.

        (B, heads, T, D / heads) and (B, heads, S, D / heads) to (B, heads, T, S), ≥ 0, rows of sum
        1.
        """
        products = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        if mask is not None:
            products = products.masked_fill(~mask, -torch.inf)
        return torch.softmax(products, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class DecoderLayer(nn.Module):
    """Self-attention, attention over the grid, feed-forward; each with dropout and a residual.

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

    def forward(self, x: Tensor, grid: Tensor, mask: Tensor) -> Tensor:
        """All tokens: x (B, T, D), projected grid (B, S, D), mask as in `Attention.attend`."""
        return self._all_tokens(x, mask, lambda y: self._over_grid(y, grid))

    def cross_attention(self, x: Tensor, grid: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` gives, and the weights of the grid at each token (B, heads, T, S)."""
        weights: list[Tensor] = []

        def over_grid(y: Tensor) -> Tensor:
            query = self.multihead_attn.queries(y)
            key, _ = self.multihead_attn.keys_values(grid)
            weights.append(self.multihead_attn.weights(query, key))
            return self._over_grid(y, grid)

        x = self._all_tokens(x, mask, over_grid)
        return x, weights[0]

    def step(
        self, x: Tensor, text: KeysValues | None, grid: KeysValues
    ) -> tuple[Tensor, KeysValues]:
        """One token a row: x (N, 1, D), where the N rows are B images times N / B beams.

        `text` holds keys and values of the N rows so far (None at the first token), `grid` those
        of the B images. Gives the new x and the longer `text`.
        """
        images = grid[0].shape[0]
        longer: list[KeysValues] = []

        def over_text(y: Tensor) -> Tensor:
            query, key, value = self.self_attn.queries_keys_values(y)
            if text is not None:
                key = torch.cat((text[0], key), dim=2)
                value = torch.cat((text[1], value), dim=2)
            longer.append((key, value))
            return self.self_attn.attend(query, (key, value))

        def over_grid(y: Tensor) -> Tensor:
            # The beams of an image are so many queries to its one set of keys and values.
            query = self.multihead_attn.queries(y.view(images, -1, y.shape[-1]))
            return self.multihead_attn.attend(query, grid).view_as(y)

        x = self._residuals(x, over_text, over_grid)
        return x, longer[0]

    def _all_tokens(self, x: Tensor, mask: Tensor, over_grid: Callable[[Tensor], Tensor]) -> Tensor:
        def over_text(y: Tensor) -> Tensor:
            query, key, value = self.self_attn.queries_keys_values(y)
            return self.self_attn.attend(query, (key, value), mask)

        return self._residuals(x, over_text, over_grid)

    def _over_grid(self, x: Tensor, grid: Tensor) -> Tensor:
        memory = self.multihead_attn.keys_values(grid)
        return self.multihead_attn.attend(self.multihead_attn.queries(x), memory)

    def _residuals(
        self,
        x: Tensor,
        over_text: Callable[[Tensor], Tensor],
        over_grid: Callable[[Tensor], Tensor],
    ) -> Tensor:
        if self.norm_first:
            x = x + self.dropout(over_text(self.norm1(x)))
            x = x + self.dropout(over_grid(self.norm2(x)))
            x = x + self.dropout(self._feedforward(self.norm3(x)))
        else:
            x = self.norm1(x + self.dropout(over_text(x)))
            x = self.norm2(x + self.dropout(over_grid(x)))
            x = self.norm3(x + self.dropout(self._feedforward(x)))
        return x

    def _feedforward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear2(self.dropout(F.gelu(self.linear1(x))))
        return output

"""Bicaptioning with torch's own layers and no optimizations: the baseline for speed.

It computes the same as the base configuration in the usual way: contiguous images,
`nn.TransformerDecoder`, and a projection of the grid in each head.
"""

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn


class PlainHead(nn.Module):
    """Logits of a grid and tokens."""

    def __init__(self, shared: "PlainHead | None", vocab_size: int, width: int, heads: int) -> None:
        super().__init__()
        self.projection = nn.Linear(2048, width) if shared is None else shared.projection
        self.words = nn.Embedding(vocab_size, width) if shared is None else shared.words
        self.positions = nn.Embedding(30, width) if shared is None else shared.positions
        self.norm = nn.LayerNorm(width) if shared is None else shared.norm
        layer = nn.TransformerDecoderLayer(width, heads, 4 * width, 0.1, "gelu", batch_first=True)
        self.transformer = nn.TransformerDecoder(layer, 1)
        self.output = nn.Linear(width, vocab_size) if shared is None else shared.output
        self.output.weight = self.words.weight

    def forward(self, grid: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        memory = self.projection(grid.flatten(2).transpose(1, 2))
        length = tokens.shape[1]
        padding = torch.arange(length) >= lengths[:, None]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = F.dropout(self.norm(self.words(tokens) + self.positions.weight[:length]), 0.1)
        x = x * (tokens != 0).unsqueeze(-1)
        x = self.transformer(x, memory, tgt_mask=causal, tgt_key_padding_mask=padding)
        return self.output(x)


class PlainBicaptioning(nn.Module):
    """ResNet-50 and two heads."""

    def __init__(self, vocab_size: int = 10000, width: int = 1024, heads: int = 16) -> None:
        super().__init__()
        self.cnn = torchvision.models.resnet50(zero_init_residual=True)
        self.textual = PlainHead(None, vocab_size, width, heads)
        self.backward_textual = PlainHead(self.textual, vocab_size, width, heads)

    def grid(self, images: Tensor) -> Tensor:
        cnn = self.cnn
        x = cnn.maxpool(cnn.relu(cnn.bn1(cnn.conv1(images))))
        return cnn.layer4(cnn.layer3(cnn.layer2(cnn.layer1(x))))

    def forward(self, images: Tensor, tokens: Tensor, backward: Tensor, lengths: Tensor) -> Tensor:
        grid = self.grid(images)
        loss = torch.zeros(())
        for head, words in ((self.textual, tokens), (self.backward_textual, backward)):
            logits = head(grid, words, lengths)[:, :-1]
            loss = loss + F.cross_entropy(
                logits.flatten(0, 1), words[:, 1:].flatten(), ignore_index=0
            )
        return loss

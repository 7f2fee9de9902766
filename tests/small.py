"""Small instances of our own parts, with weights large enough that every part matters."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from virtex.models.backbone import Backbone
from virtex.models.decoder import TokenEmbedding, Transformer, TransformerDecoder, tied_output
from virtex.models.heads import LabelHead
from virtex.models.networks import residual_grid
from virtex.tasks.auxiliary_tokens import TokensHead
from virtex.tasks.base import AuxiliaryHead, Batch
from virtex.tasks.captioning import Captioning
from virtex.tasks.label_targets import LabelCounts, LabelTargets

VOCABULARY = 11
CHANNELS = 6
LENGTH = 10
SIDE = 16
"""Sides of the images, in pixels; a grid has 2 x 2 positions."""


def transformer(*, layers: int = 2, norm_first: bool = False, dropout: float = 0.0) -> Transformer:
    return Transformer(
        layers=layers, width=8, heads=2, feedforward=12, dropout=dropout, norm_first=norm_first
    )


def decoder(
    *, layers: int = 2, norm_first: bool = False, dropout: float = 0.0, seed: int = 0
) -> TransformerDecoder:
    """A decoder in training mode, float32."""
    embedding = TokenEmbedding(VOCABULARY, 8, LENGTH, dropout, padding_index=0)
    body = transformer(layers=layers, norm_first=norm_first, dropout=dropout)
    built = TransformerDecoder(nn.Linear(CHANNELS, 8), embedding, body, tied_output(embedding))
    spread(built, seed)
    return built


class Network(nn.Module):
    """The stages of a residual network, without the depth: CHANNELS channels at 1/8 of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.layer2 = nn.Identity()
        self.layer3 = nn.Identity()
        self.layer4 = nn.Sequential(nn.Conv2d(4, CHANNELS, 2, stride=2), nn.BatchNorm2d(CHANNELS))


def backbone(*, frozen: bool = False, channels_last: bool = True, seed: int = 0) -> Backbone:
    network = Network()
    spread(network, seed)
    return Backbone(
        network,
        residual_grid,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.25, 0.3),
        frozen=frozen,
        channels_last=channels_last,
    )


def captioning(
    *,
    both: bool = True,
    norm_first: bool = False,
    dropout: float = 0.0,
    frozen: bool = False,
    channels_last: bool = True,
    seed: int = 0,
) -> Captioning:
    """A captioning model in one or `both` directions, float32, in training mode."""
    visual = backbone(frozen=frozen, channels_last=channels_last, seed=seed)
    forward = decoder(layers=1, norm_first=norm_first, dropout=dropout, seed=seed)
    if not both:
        return Captioning(visual, forward)
    body = transformer(layers=1, norm_first=norm_first, dropout=dropout)
    spread(body, seed + 1)
    backward = TransformerDecoder(
        forward.visual_projection, forward.embedding, body, forward.output
    )
    return Captioning(visual, forward, backward)


class LengthHead(AuxiliaryHead):
    """Predicts the length of an image's caption where it has more than five tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(CHANNELS, 1)
        spread(self, seed=7)

    def num_targets(self, batch: Batch) -> Tensor:
        return (batch["caption_lengths"] > 5).sum()

    def forward(self, grid: Tensor, batch: Batch) -> Tensor:
        lengths = batch["caption_lengths"]
        errors = self.output(grid.mean(dim=(2, 3))).squeeze(1) - lengths
        return (errors.square() * (lengths > 5)).sum()


def tokens_head() -> TokensHead:
    """Predicts the tokens of an image, of which 0 to 3 are ignored."""
    classifier, counts = LabelHead(CHANNELS, VOCABULARY), LabelCounts(VOCABULARY)
    spread(classifier, seed=8)
    counts.put(VOCABULARY, torch.arange(VOCABULARY))
    return TokensHead(classifier, LabelTargets((0, 1, 2, 3), counts))


def batch(rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random images and captions of 3 to LENGTH tokens, [SOS] = 1 … [EOS] = 2, none unknown."""
    generator = torch.Generator().manual_seed(seed)

    def integers(low: int, high: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    lengths = integers(3, LENGTH + 1, (rows,))
    tokens = torch.zeros(rows, int(lengths.max()), dtype=torch.int64)
    mirrored = tokens.clone()
    for row, length in enumerate(lengths.tolist()):
        middle = integers(3, VOCABULARY, (length - 2,))
        tokens[row, :length] = torch.cat((torch.tensor([1]), middle, torch.tensor([2])))
        mirrored[row, :length] = tokens[row, :length].flip(0)
    return {
        "image": integers(0, 256, (rows, 3, SIDE, SIDE)).to(torch.uint8),
        "image_id": torch.arange(100, 100 + rows),
        "dropout_key": integers(0, 2**62, (rows,)),
        "caption_tokens": tokens,
        "reversed_tokens": mirrored,
        "caption_lengths": lengths,
    }


def rows_of(given: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """Some examples of a batch, padded no further than the longest of them."""
    taken = {name: tensor[rows] for name, tensor in given.items()}
    longest = int(taken["caption_lengths"].max())
    for name in ("caption_tokens", "reversed_tokens"):
        taken[name] = taken[name][:, :longest]
    return taken


@torch.no_grad()
def spread(module: nn.Module, seed: int) -> None:
    """Give every parameter values of its own, so that none is zero, one or alike."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        scales = parameter.dim() == 1 and name.endswith("weight")  # of a norm
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(0.4 * noise + (1 if scales else 0))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and persistent buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    """The same names, and bit by bit the same values."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []

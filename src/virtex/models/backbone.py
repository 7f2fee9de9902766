"""The visual backbone: images to a grid of features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from virtex.models.networks import Grid


class Backbone(nn.Module):
    """Images to a grid of features.

    `cnn` and `grid`, which computes its features, are those of a `Network`. `mean` and `std` are
    per band, of RGB or others, for pixels in [0, 1]. A frozen backbone has no gradients and keeps
    its batch-norm statistics. `channels_last` sets the memory layout of the convolutions, which
    affects speed and rounding. `note` is a line for the log on how its weights were converted.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        cnn: nn.Module,
        grid: Grid,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        channels_last: bool = True,
        frozen: bool = False,
        note: str | None = None,
    ) -> None:
        super().__init__()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.cnn = cnn.to(memory_format=layout)
        self.grid = grid
        self.layout = layout
        self.frozen = frozen
        self.note = note
        if frozen:
            self.requires_grad_(False)
            self.train(False)
        # For pixels in 0..255, so that a uint8 image is normalised in one pass.
        self.register_buffer("pixel_mean", _per_channel(mean), persistent=False)
        self.register_buffer("pixel_std", _per_channel(std), persistent=False)

    def train(self, mode: bool = True) -> "Backbone":
        """As `nn.Module.train`, but a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, N, H, W) uint8 bands, or float that is already normalised, to (B, C, h, w)."""
        if not images.is_floating_point():
            images = (images - self.pixel_mean) / self.pixel_std
        return self.grid(self.cnn, images.contiguous(memory_format=self.layout))


def _per_channel(values: Sequence[float]) -> Tensor:
    return 255 * torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)

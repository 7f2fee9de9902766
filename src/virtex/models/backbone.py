"""Visual backbones: torchvision networks without their classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from virtex.errors import UserError


def network_names() -> list[str]:
    """Names of the torchvision networks that `residual_network` builds."""
    names: list[str] = torchvision.models.list_models(
        include=["resnet*", "resnext*", "wide_resnet*"]
    )
    return names


def residual_network(
    name: str, *, feature_size: int, pretrained: bool = False, zero_init_residual: bool = True
) -> nn.Module:
    """A torchvision ResNet, ResNeXt or wide ResNet without its classifier.

    `pretrained` takes torchvision's first ImageNet weights (IMAGENET1K_V1).
    `zero_init_residual` lets every residual branch start at zero (Goyal et al., 2017).

    Raises `UserError` if the name is unknown, if `feature_size` is not the number of channels of
    the last stage, or if pretrained weights cannot be had.
    """
    if name not in network_names():
        raise UserError(
            f"MODEL.VISUAL.NAME: torchvision has no residual network {name!r}; "
            f"choose one of {', '.join(network_names())}"
        )
    weights = "IMAGENET1K_V1" if pretrained else None
    try:
        cnn: Any = torchvision.models.get_model(
            name, weights=weights, zero_init_residual=zero_init_residual
        )
    except (URLError, OSError) as error:
        directory = Path(torch.hub.get_dir()) / "checkpoints"
        raise UserError(
            f"MODEL.VISUAL.PRETRAINED: torchvision's weights for {name!r} could not be fetched "
            f"({error}); put the file into {directory}, or set MODEL.VISUAL.PRETRAINED false"
        ) from error
    if cnn.fc.in_features != feature_size:
        raise UserError(
            f"MODEL.VISUAL.FEATURE_SIZE is {feature_size}, but {name} gives "
            f"{cnn.fc.in_features} channels; set MODEL.VISUAL.FEATURE_SIZE {cnn.fc.in_features}"
        )
    cnn.fc = nn.Identity()
    network: nn.Module = cnn
    return network


class Backbone(nn.Module):
    """Images to a grid of features.

    `cnn` is a network of `residual_network`; `mean` and `std` are per RGB channel for pixels in
    [0, 1]. A frozen backbone takes no gradient and keeps its batch-norm statistics.
    `channels_last` chooses the memory layout of the convolutions: it changes speed and rounding.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        cnn: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        channels_last: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.cnn = cnn.to(memory_format=layout)
        self.layout = layout
        self.frozen = frozen
        if frozen:
            self.requires_grad_(False)
            self.train(False)
        # Of pixels in 0..255, so that a uint8 image is normalised in one pass.
        self.register_buffer("pixel_mean", _per_channel(mean), persistent=False)
        self.register_buffer("pixel_std", _per_channel(std), persistent=False)

    def train(self, mode: bool = True) -> "Backbone":
        """As `nn.Module.train`, but a frozen backbone stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB, or float that is already normalised, to (B, C, H/32, W/32)."""
        if not images.is_floating_point():
            images = (images - self.pixel_mean) / self.pixel_std
        cnn: Any = self.cnn
        x = images.contiguous(memory_format=self.layout)
        x = cnn.maxpool(cnn.relu(cnn.bn1(cnn.conv1(x))))
        grid: Tensor = cnn.layer4(cnn.layer3(cnn.layer2(cnn.layer1(x))))
        return grid


def _per_channel(values: Sequence[float]) -> Tensor:
    return 255 * torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)

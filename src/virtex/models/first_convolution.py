"""The first convolution of a network, for images with other than three bands."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

RGB = 3
_CONVNEXT_PATCH = 4


def first_convolution(cnn: nn.Module) -> str:
    """The name of the convolution that takes the image, the first in torchvision's networks."""
    name: str
    name = next(name for name, module in cnn.named_modules() if isinstance(module, nn.Conv2d))
    return name


def take_bands(cnn: nn.Module, bands: int) -> None:
    """Give a network a new first convolution for images (B, bands, H, W), unless it has that.

    Its weights are drawn from torch's random state with the deviation and mean of 0 that the
    network's design has for this layer, for the new number of bands; a bias stays.
    """
    name = first_convolution(cnn)
    old = cnn.get_submodule(name)
    assert isinstance(old, nn.Conv2d)
    if bands == old.in_channels:
        return
    new = nn.Conv2d(
        bands,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        _initialise(new.weight, has_bias=old.bias is not None)
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    cnn.set_submodule(name, new)


def _initialise(weight: Tensor, *, has_bias: bool) -> None:
    """Draw weights as torchvision does: ResNet and RegNet, then ConvNeXt, then ViT."""
    outputs, inputs, height, width = weight.shape
    if not has_bias:  # followed by batch norm (He et al., 2015)
        nn.init.normal_(weight, std=math.sqrt(2 / (outputs * height * width)))
    elif height == _CONVNEXT_PATCH:
        nn.init.trunc_normal_(weight, std=0.02)
    else:
        nn.init.trunc_normal_(weight, std=math.sqrt(1 / (inputs * height * width)))


def convert_weights(weight: Tensor, bands: int) -> Tensor:
    """The weights (O, 3, h, w) of a convolution of RGB for other bands, (O, bands, h, w).

    The first three bands take those of red, green and blue, each other one their mean; fewer than
    three take the mean. All are scaled by 3 / bands, so that outputs keep their size for bands
    that are alike.
    """
    mean = weight.mean(dim=1, keepdim=True)
    if bands < RGB:
        converted = mean.expand(-1, bands, -1, -1)
    else:
        converted = torch.cat((weight, mean.expand(-1, bands - RGB, -1, -1)), dim=1)
    return (converted * (RGB / bands)).contiguous()


def fit_first_convolution(
    cnn: nn.Module, weights: Mapping[str, Any], prefix: str = ""
) -> tuple[Mapping[str, Any], str | None]:
    """Weights of RGB under the network's names, below `prefix`, converted to its number of bands.

    With a line for the log; unchanged and None if they are for other than three bands or fit.
    """
    name = f"{first_convolution(cnn)}.weight"
    own, given = cnn.get_parameter(name), weights.get(prefix + name)
    if not isinstance(given, Tensor) or given.dim() != 4:
        return weights, None
    bands = own.shape[1]
    if given.shape[1] != RGB or bands == RGB:
        return weights, None
    of_each = "the first three take its filters, others their mean"
    if bands < RGB:
        of_each = "each takes the mean of its filters"
    line = (
        f"the first convolution of the weights is for RGB: of {bands} bands, {of_each}, scaled by "
        f"3/{bands}"
    )
    return {**weights, prefix + name: convert_weights(given, bands)}, line

"""Torchvision's networks as backbones: their names, construction and weights.

A family is a design whose networks compute their grid of features in the same way. Modules keep
torchvision's names; of the classifier only the linear layer is removed.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import vision_transformer

from virtex.errors import UserError
from virtex.models.first_convolution import fit_first_convolution, take_bands
from virtex.models.modes import SizesAlone
from virtex.models.state_dict import model_weights, state_dict_mismatches

State = Mapping[str, Any]
Grid = Callable[[Any, Tensor], Tensor]
"""Maps a network and normalised images (B, 3, H, W) to the grid of its last stage (B, C, h, w)."""


@dataclass(frozen=True)
class Family:
    """The common properties of networks of one design.

    `names` are patterns of torchvision's names, `options` the arguments of `network` that
    torchvision's builders take, `classifier` the linear layer at the end. `adapt` converts weights
    that torchvision can also read into the network's own.
    """

    names: tuple[str, ...]
    options: tuple[str, ...]
    classifier: str
    grid: Grid
    adapt: Callable[[Any, State], State] = lambda _, weights: weights


@dataclass(frozen=True)
class Network:
    """A torchvision network without its linear classifier."""

    name: str
    family: Family
    cnn: nn.Module

    @property
    def grid(self) -> Grid:
        """The function that computes features from images."""
        return self.family.grid


def residual_grid(cnn: Any, images: Tensor) -> Tensor:
    """The grid of ResNets (He et al., 2015) and similar networks; 1/32 of the images' size."""
    x = cnn.maxpool(cnn.relu(cnn.bn1(cnn.conv1(images))))
    grid: Tensor = cnn.layer4(cnn.layer3(cnn.layer2(cnn.layer1(x))))
    return grid


def _regnet_grid(cnn: Any, images: Tensor) -> Tensor:
    grid: Tensor = cnn.trunk_output(cnn.stem(images))
    return grid


def _convnext_grid(cnn: Any, images: Tensor) -> Tensor:
    """The grid of a ConvNeXt, including the norm that torchvision makes part of the classifier.

    The stages end in a residual sum of unbounded scale, and the textual head begins with a linear
    layer. The authors also normalise each position where the grid is used (Liu et al., 2022).
    """
    grid: Tensor = cnn.classifier[0](cnn.features(images))
    return grid


def _patch_grid(cnn: Any, images: Tensor) -> Tensor:
    """The encoded patches of a vision transformer, without its class token."""
    side = cnn.image_size
    assert images.shape[2:] == (side, side), f"built for images of {side} pixels a side"
    patches = cnn.conv_proj(images)  # (B, D, h, w)
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat((cnn.class_token.expand(len(tokens), -1, -1), tokens), dim=1)
    encoded: Tensor = cnn.encoder(tokens)  # (B, 1 + h·w, D)
    return encoded[:, 1:].transpose(1, 2).reshape(patches.shape)


def _patch_weights(cnn: Any, weights: State) -> State:
    """Weights under current names, with positions interpolated to the network's image size."""
    current = {
        name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3."): value
        for name, value in weights.items()
    }
    positions = current.get("encoder.pos_embedding")
    if isinstance(positions, Tensor) and positions.dim() == 3 and len(positions) == 1:
        count = positions.shape[1] - 1
        if count > 0 and math.isqrt(count) ** 2 == count:
            interpolate = vision_transformer.interpolate_embeddings
            current = dict(interpolate(cnn.image_size, cnn.patch_size, current))
    return current


FAMILIES = (
    Family(
        names=("resnet*", "resnext*", "wide_resnet*"),
        options=("zero_init_residual",),
        classifier="fc",
        grid=residual_grid,
    ),
    Family(names=("regnet*",), options=(), classifier="fc", grid=_regnet_grid),
    Family(names=("convnext*",), options=(), classifier="classifier.2", grid=_convnext_grid),
    Family(
        names=("vit*",),
        options=("image_size",),
        classifier="heads.head",
        grid=_patch_grid,
        adapt=_patch_weights,
    ),
)


def network_names(family: Family | None = None) -> list[str]:
    """The names of all networks that `network` builds, or of those of one family."""
    patterns = [name for known in FAMILIES if family in (None, known) for name in known.names]
    # Those for classification; networks for other tasks and quantized ones have their own modules.
    names: list[str] = torchvision.models.list_models(torchvision.models, include=patterns)
    return names


def check_network(name: str, image_size: int) -> None:
    """Raise `UserError` if `network` would reject the name or the image size."""
    family = find_family(name)
    patch = int(name.rpartition("_")[2]) if "image_size" in family.options else 1
    if image_size % patch:
        raise UserError(
            f"DATA.IMAGE_CROP_SIZE is {image_size}, which is not a multiple of the patch size "
            f"of {name}, {patch} pixels; choose a multiple of {patch}, such as "
            f"{image_size + patch - image_size % patch}, or another MODEL.VISUAL.NAME"
        )


def feature_size(name: str) -> int:
    """The number of channels of a network's grid; raises `UserError` for an unknown name."""
    family = find_family(name)
    with SizesAlone():
        cnn: nn.Module = torchvision.models.get_model(name, weights=None)
    width = cnn.get_submodule(family.classifier).in_features
    assert isinstance(width, int)
    return width


def network(
    name: str,
    *,
    feature_size: int,
    image_size: int,
    zero_init_residual: bool = True,
    bands: int = 3,
) -> Network:
    """A torchvision network, freshly initialised from torch's random state.

    `image_size` is the side in pixels; only vision transformers depend on it. `bands` is the number
    of channels of the images. With
    `zero_init_residual` every residual branch of a ResNet starts at zero (Goyal et al., 2017).

    Raises `UserError` if the name is unknown, if `feature_size` is not the number of channels of
    the grid, or if the image size is not a multiple of a vision transformer's patch size.
    """
    check_network(name, image_size)
    family = find_family(name)
    options = {"zero_init_residual": zero_init_residual, "image_size": image_size}
    chosen = {option: options[option] for option in family.options}
    cnn: nn.Module = torchvision.models.get_model(name, weights=None, **chosen)
    classifier = cnn.get_submodule(family.classifier)
    assert isinstance(classifier, nn.Linear)
    if classifier.in_features != feature_size:
        raise UserError(
            f"MODEL.VISUAL.FEATURE_SIZE is {feature_size}, but {name} gives "
            f"{classifier.in_features} channels; set MODEL.VISUAL.FEATURE_SIZE "
            f"{classifier.in_features}"
        )
    cnn.set_submodule(family.classifier, nn.Identity())
    take_bands(cnn, bands)
    return Network(name, family, cnn)


_PRETRAINED = "MODEL.VISUAL.PRETRAINED"
_LOCAL_FILE = "set MODEL.VISUAL.PRETRAINED to the path of a local file, or to false"


def fetch_weights(
    name: str,
    *,
    setting: str = _PRETRAINED,
    remedy: str = _LOCAL_FILE,
) -> Path:
    """The file of torchvision's ImageNet weights in torch's cache, downloaded if missing.

    IMAGENET1K_V1 as published with the network, or torchvision's default if that does not exist.
    Raises `UserError` if the download fails or there are none; `setting` and `remedy` are the
    begin and the end of its message.
    """
    choices = torchvision.models.get_model_weights(name).__members__
    url = _weights_url(name, choices, setting, remedy)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name ends in the first digits of the content's SHA-256.
        digits = path.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(url, str(path), digits)
    # The connection fails or ends too early, or the checksum is wrong.
    except (OSError, HTTPException, RuntimeError) as error:
        raise UserError(
            f"{setting}: torchvision's weights of {name} could not be downloaded ({error}); put "
            f"{path.name} (from {url}) into {path.parent}, or {remedy}"
        ) from error
    return path


def load_pretrained(into: Network, state: State, source: str) -> str | None:
    """Load the `backbone_weights` of `state` into a network; RGB weights are fitted to its bands.

    Returns a line for the log if they were. Raises `UserError` that names missing keys, unexpected
    keys and size mismatches.
    """
    weights, line = fit_first_convolution(into.cnn, backbone_weights(into, state))
    lines = state_dict_mismatches(into.cnn.state_dict(), weights)
    if lines:
        raise UserError(
            f"MODEL.VISUAL.PRETRAINED: the weights of {source} do not fit {into.name}; name a file "
            "of this network, or set MODEL.VISUAL.NAME to the file's:\n" + "\n".join(lines)
        )
    into.cnn.load_state_dict(weights)
    return line


def backbone_weights(of: Network, state: State) -> dict[str, Any]:
    """The weights in `state` for a network: torchvision's, or a virtex checkpoint's.

    `state` holds the network's own names, or those below `visual.cnn`, bare or under `model`. The
    classifier and everything outside the backbone are ignored. A vision transformer's positions
    are interpolated to its image size.
    """
    prefix, classifier = "visual.cnn.", f"{of.family.classifier}."
    weights = model_weights(state)
    below = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    weights = {
        name: value for name, value in (below or weights).items() if not name.startswith(classifier)
    }
    own = of.cnn.state_dict()
    # Files of old versions lack these counters, which no computation uses.
    counters = {name: own[name] for name in own if name.endswith(".num_batches_tracked")}
    return counters | dict(of.family.adapt(of.cnn, weights))


def find_family(name: str) -> Family:
    """The family of a network; raises `UserError` for an unknown name."""
    for family in FAMILIES:
        if name in network_names(family):
            return family
    names = network_names()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean 'torchvision::{near[0]}'?" if near else "."
    raise UserError(
        f"MODEL.VISUAL.NAME is 'torchvision::{name}', an unknown backbone{hint} "
        f"Supported: {', '.join(names)}"
    )


def _weights_url(
    name: str,
    choices: Mapping[str, Any],
    setting: str = _PRETRAINED,
    remedy: str = _LOCAL_FILE,
) -> str:
    if not choices:
        raise UserError(f"{setting}: torchvision has no weights for {name}; {remedy}")
    url: str = choices.get("IMAGENET1K_V1", choices.get("DEFAULT")).url
    return url

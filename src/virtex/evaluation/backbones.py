"""The backbones that an evaluation compares: of checkpoints, torchvision's, and random ones."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from virtex.build.images import with_pixel_options
from virtex.build.model import build_backbone
from virtex.checkpoints.exported import exported_weights, read_manifest
from virtex.checkpoints.model_directory import is_model_directory
from virtex.checkpoints.state import Checkpoint, read
from virtex.config import loading as settings
from virtex.config.schema import Config
from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.first_convolution import fit_first_convolution
from virtex.models.networks import (
    Network,
    backbone_weights,
    feature_size,
    fetch_weights,
    find_family,
)
from virtex.models.state_dict import state_dict_mismatches

RANDOM, TORCHVISION = "random", "torchvision"
"""Names of backbones that no file holds: fresh weights, and torchvision's for ImageNet."""


@dataclass(frozen=True)
class EvaluatedBackbone:
    """A backbone in evaluation mode, and what identifies it.

    `name` is a file's path, `random` or `torchvision`. `sha256` is the hash of its weights and of
    the mean and deviation that normalise pixels.
    `iteration` is that of the run that saved it; None if no run of virtex did.
    """

    name: str
    network: str
    module: Backbone
    image_size: int
    sha256: str
    config: Config
    iteration: int | None = None
    contents: Mapping[str, Any] | None = None
    """The numbers of images and captions that its run was trained on, if a file has them."""

    @property
    def note(self) -> str | None:
        """A line on how the weights were converted; None if they were not."""
        return None if self.module.note is None else f"{self.name}: {self.module.note}"

    @property
    def path(self) -> Path | None:
        """The file that holds it; None for `random` and `torchvision`."""
        return None if self.name in (RANDOM, TORCHVISION) else Path(self.name)


def open_backbones(
    names: Sequence[str],
    *,
    config: Path | None = None,
    network_name: str | None = None,
    image_size: int | None = None,
    pixels: Mapping[str, Any] | None = None,
    average: bool = False,
) -> list[EvaluatedBackbone]:
    """The backbones of checkpoints, or `random` and `torchvision`, in the order of `names`.

    A checkpoint of a run holds its configuration. Others need `config`, the YAML file of their run,
    or `network_name` (`torchvision::NAME`) for weights under torchvision's names. `random` and
    `torchvision` take the network of these or else of the first checkpoint of a run. `random` has
    the weights with which a run of that configuration begins. `image_size` replaces the
    configuration's `DATA.IMAGE_CROP_SIZE`, and `pixels` settings of `DATA` by their names in lower
    case. `average` takes the average of the weights of the checkpoints.

    Raises `UserError` for a name given twice and for what cannot be read or does not fit.
    """
    check_distinct(names)
    files = {
        name: _read(Path(name), average=average)
        for name in names
        if name not in (RANDOM, TORCHVISION)
    }
    given = _given_config(config, network_name, image_size)
    first = next((file.config for file in files.values() if file.is_own), None)
    opened = []
    for name in names:
        file = files.get(name)
        own = file.config if file is not None and file.is_own else None
        chosen = own or given or (first if file is None else None)
        if chosen is None:
            raise UserError(
                f"--checkpoint {name}: nothing says which network it is; give --network such as "
                "torchvision::resnet50, or --config with the YAML file of its run"
            )
        if own is not None and image_size is not None:
            chosen = _with_image_size(chosen, image_size)
        opened.append(_open(name, file, with_pixel_options(chosen, pixels or {})))
    return opened


def _read(path: Path, *, average: bool) -> Checkpoint:
    """The checkpoint in a file, or one with what a directory of `virtex export` tells."""
    if not path.is_dir() or is_model_directory(path):
        return read(path, average=average)
    if average:
        raise UserError(
            f"--checkpoint {path} is an export, which holds no average of the weights; leave out "
            "--average, or name a checkpoint"
        )
    manifest = read_manifest(path)
    normalize = f"normalize::{ {'mean': tuple(manifest.mean), 'std': tuple(manifest.std)} }"
    resize = f"smallest_resize::{ {'size': manifest.resize} }"
    visual = {
        "NAME": f"torchvision::{manifest.network}",
        "FEATURE_SIZE": manifest.feature_size,
    }
    data: dict[str, Any] = {
        "IMAGE_CROP_SIZE": manifest.image_size,
        "IMAGE_TRANSFORM_TRAIN": ("random_resized_crop", normalize),
        "IMAGE_TRANSFORM_VAL": (resize, "center_crop", normalize),
        "BANDS": manifest.band_numbers,
        "DICOM_WINDOW": manifest.dicom_window,
    }
    if manifest.pixel_range is not None:
        data["PIXEL_RANGE"] = manifest.pixel_range
    config = _validated({"DATA": data, "MODEL": {"VISUAL": visual}})
    cnn = build_backbone(config, weights_follow=True).cnn
    state = {
        "model": exported_weights(path, manifest, cnn),
        "config": config.model_dump(mode="json", by_alias=True),
        "iteration": manifest.iteration,
        "versions": manifest.versions,
    }
    return Checkpoint(str(path), state)


def check_distinct(names: Sequence[str]) -> None:
    """Raise `UserError` for a checkpoint that is given twice."""
    files = [name if name in (RANDOM, TORCHVISION) else Path(name).resolve() for name in names]
    for name, file in zip(names, files, strict=True):
        if files.count(file) > 1:
            raise UserError(f"--checkpoint {name} is given more than once")


def _given_config(
    config: Path | None, network_name: str | None, image_size: int | None
) -> Config | None:
    size = [] if image_size is None else ["DATA.IMAGE_CROP_SIZE", str(image_size)]
    if config is not None:
        return settings.load(Config, config, size)
    if network_name is None:
        return None
    prefix, _, name = network_name.partition("::")
    if prefix != "torchvision":
        raise UserError(f"--network {network_name}: expected a name such as torchvision::resnet50")
    try:
        width = feature_size(name)
    except UserError as error:
        text = str(error).replace("MODEL.VISUAL.NAME is", "--network is")
        raise UserError(text) from error
    visual = {"NAME": network_name, "FEATURE_SIZE": width}
    data = {} if image_size is None else {"IMAGE_CROP_SIZE": image_size}
    return _validated({"MODEL": {"VISUAL": visual}, "DATA": data})


def _with_image_size(config: Config, image_size: int) -> Config:
    plain = config.model_dump(mode="json", by_alias=True)
    plain["DATA"]["IMAGE_CROP_SIZE"] = image_size
    return _validated(plain)


def _validated(plain: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(plain)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(f"--image-size does not fit the network: {problem}") from error


def _open(name: str, file: Checkpoint | None, config: Config) -> EvaluatedBackbone:
    visual = config.model.visual
    torch.manual_seed(config.random_seed)  # before the backbone, as a run does
    module = build_backbone(config, weights_follow=True)
    if name == TORCHVISION:
        path = fetch_weights(
            visual.network, setting="--checkpoint torchvision", remedy="leave it out"
        )
        module.note = _load(module.cnn, config, read(path), name)
    elif file is not None:
        _load(module.cnn, config, file, name)
    iteration = file.state.get("iteration") if file is not None and file.is_own else None
    return EvaluatedBackbone(
        name=name,
        network=visual.network,
        module=module.eval(),
        image_size=config.data.image_crop_size,
        sha256=module_hash(module),
        config=config,
        iteration=iteration,
        contents=None if file is None else file.state.get("data"),
    )


def _load(cnn: nn.Module, config: Config, file: Checkpoint, name: str) -> str | None:
    name_of_network = config.model.visual.network
    own = Network(name_of_network, find_family(name_of_network), cnn)
    weights: Mapping[str, Any] = backbone_weights(own, file.weights)
    note = None
    if name == TORCHVISION:
        weights, note = fit_first_convolution(cnn, weights)
    mismatches = state_dict_mismatches(cnn.state_dict(), weights)
    if mismatches:
        raise UserError(
            f"--checkpoint {name}: the weights do not fit {name_of_network}; give the network of "
            f"the file with --network or --config ({'; '.join(map(str.strip, mismatches))})"
        )
    cnn.load_state_dict(weights)
    return note


def module_hash(backbone: nn.Module) -> str:
    """The hash of a backbone's weights, its statistics, and the normalisation of pixels."""
    return weights_hash({**dict(backbone.named_parameters()), **dict(backbone.named_buffers())})


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes of tensors, in hex."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

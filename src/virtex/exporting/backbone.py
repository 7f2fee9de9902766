"""A backbone as a directory that another library loads."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from virtex._version import __version__
from virtex.build.transforms import transform_steps
from virtex.checkpoints.exported import (
    MANIFEST,
    WEIGHTS,
    Manifest,
    Target,
    exported_keys,
    save_tensors,
)
from virtex.checkpoints.model_directory import write_model
from virtex.config.schema import Config
from virtex.data.transforms import CenterCrop, SmallestResize, apply_transforms
from virtex.errors import UserError
from virtex.evaluation.results import Result
from virtex.exporting import fingerprint
from virtex.exporting.card import CARD, Card
from virtex.exporting.onnx_file import write_onnx
from virtex.files import write_whole
from virtex.models.backbone import Backbone
from virtex.models.modes import evaluating
from virtex.models.other_names import timm_architecture, timm_arguments

TARGETS: tuple[Target, ...] = get_args(Target)
_LIKE_RESNET = ("resnet", "resnext", "wide_resnet")


@dataclass(frozen=True)
class ExportedBackbone:
    """A backbone to export: its module in evaluation mode on the CPU, and its origin.

    `source` names its checkpoint, `iteration` and `contents` are those of the run: how far it was,
    and the numbers of images and captions. `results` are those of its evaluations.
    """

    module: Backbone
    config: Config
    source: str
    iteration: int | None = None
    contents: Mapping[str, Any] | None = None
    results: tuple[Result, ...] = ()
    state: Mapping[str, Any] | None = None
    """The content of the checkpoint of a run, for the export of the whole model."""

    @property
    def network(self) -> str:
        """torchvision's name of the network."""
        return self.config.model.visual.network

    def features(self, images: Tensor) -> Tensor:
        """The mean of the grid (B, C) float32 of uint8 or normalised images (B, N, H, W)."""
        with evaluating(self.module):
            grid: Tensor = self.module(images)
            return grid.mean(dim=(2, 3)).float()


def export_backbone(target: Target, backbone: ExportedBackbone, directory: Path) -> Manifest:
    """Write a new directory with weights, manifest, fingerprints and model card.

    Raises `UserError` for a network that the target does not offer, for validation transforms that
    no other library has, and for a directory that holds something already.
    """
    _check(target, backbone, directory)
    manifest = _manifest(target, backbone)
    directory.mkdir(parents=True, exist_ok=True)
    _write_weights(backbone, manifest, directory)
    tensor = fingerprint.formula_tensor(manifest.bands, manifest.image_size)
    prints = {fingerprint.TENSOR: backbone.features(tensor)}
    if manifest.bands == 3:
        prints[fingerprint.IMAGE] = backbone.features(_crop_of_image(manifest))
    save_tensors(directory / fingerprint.FILE, prints, {"formula": fingerprint.FORMULA})
    card = Card(manifest, backbone.config, backbone.source, backbone.contents, backbone.results)
    write_whole(directory / CARD, card.text().encode())
    # Last, so that a directory with a manifest is complete.
    _write_json(directory / MANIFEST, manifest.model_dump())
    return manifest


def _write_weights(backbone: ExportedBackbone, manifest: Manifest, directory: Path) -> None:
    """Write the weights, and what the library needs beside them."""
    target = manifest.target
    if target == "virtex":
        assert backbone.state is not None, "the interface gives it"
        write_model(directory, backbone.state)
        return
    state = backbone.module.cnn.state_dict()
    names = exported_keys(backbone.network, manifest.keys_of, state)
    shaped = {new: _shaped(target, state[old]) for old, new in names.items()}
    save_tensors(directory / WEIGHTS, shaped, {"format": "pt"})
    if target == "timm":
        _write_json(directory / "config.json", timm_config(manifest))
    if target == "onnx":
        write_onnx(backbone.module, manifest, directory)


def _check(target: Target, backbone: ExportedBackbone, directory: Path) -> None:
    network = backbone.network
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"--output {directory} exists; choose a new directory")
    if target == "timm" and timm_architecture(network) is None:
        raise UserError(
            f"the network {network} is not exported to timm, as its names there are not known;"
            " export to torchvision or onnx"
        )
    if target == "detectron2" and not network.startswith(_LIKE_RESNET):
        raise UserError(f"detectron2 has ResNets, and the network is {network}; export to onnx")
    if target == "torchvision" and not network.startswith((*_LIKE_RESNET, "regnet")):
        raise UserError(
            f"torchvision's own {network} does not give the mean of the grid as its features, on"
            " which the head was trained; export to timm or onnx"
        )


def _manifest(target: Target, backbone: ExportedBackbone) -> Manifest:
    data, visual = backbone.config.data, backbone.config.model.visual
    match transform_steps(data.transforms_val, data.image_crop_size):
        case [SmallestResize(size=resize), CenterCrop()]:
            pass
        case _:
            raise UserError(
                "DATA.IMAGE_TRANSFORM_VAL has other transforms than smallest_resize, center_crop"
                " and normalize, which other libraries do not have"
            )
    statistics = data.normalization
    assert statistics is not None, "a backbone is built with them"
    assert visual.feature_size is not None, "the settings of a checkpoint are resolved"
    return Manifest(
        target=target,
        network=backbone.network,
        feature_size=visual.feature_size,
        image_size=data.image_crop_size,
        resize=resize,
        bands=data.band_count,
        band_numbers=None if data.bands is None else list(data.bands),
        mean=list(statistics[0]),
        std=list(statistics[1]),
        pixel_range=None if data.pixel_range == "auto" else _plain(data.pixel_range),
        dicom_window=_plain(data.dicom_window),
        iteration=backbone.iteration,
        versions={"virtex": __version__, "torch": str(torch.__version__)},
    )


def _plain(value: object) -> object:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value))


def timm_config(manifest: Manifest) -> dict[str, object]:
    """The `config.json` that timm and transformers read."""
    arguments = timm_arguments(manifest.network, manifest.image_size, manifest.bands)
    return {
        "architecture": timm_architecture(manifest.network),
        "num_classes": 0,
        "num_features": manifest.feature_size,
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "virtex",
            "custom_load": False,
            "input_size": [manifest.bands, manifest.image_size, manifest.image_size],
            "fixed_input_size": manifest.network.startswith("vit_"),
            "interpolation": "bilinear",
            "crop_pct": manifest.image_size / manifest.resize,
            "crop_mode": "center",
            "mean": manifest.mean,
            "std": manifest.std,
            "num_classes": 0,
            "license": "not stated",
        },
    }


def _shaped(target: Target, tensor: Tensor) -> Tensor:
    """timm's scales of residual branches have one dimension, torchvision's (C, 1, 1)."""
    is_scale = tensor.dim() == 3 and tensor.shape[1:] == (1, 1)
    return tensor.flatten() if target == "timm" and is_scale else tensor


def _crop_of_image(manifest: Manifest) -> Tensor:
    """The drawn image as validation sees it, (1, 3, H, W) uint8."""
    resize, crop_centre = SmallestResize(manifest.resize), CenterCrop(manifest.image_size)
    crop = apply_transforms(np.asarray(fingerprint.formula_image()), [resize, crop_centre])
    return torch.from_numpy(crop).permute(2, 0, 1).unsqueeze(0)


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    write_whole(path, json.dumps(values, indent=1).encode() + b"\n")

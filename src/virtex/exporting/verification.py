"""Loading an exported backbone back by the library that it is for, and its fingerprints there."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from virtex.checkpoints.exported import (
    WEIGHTS,
    Manifest,
    exported_keys,
    load_tensors,
    read_manifest,
)
from virtex.errors import UserError
from virtex.exporting import fingerprint, onnx_file
from virtex.models.networks import network
from virtex.models.state_dict import state_dict_mismatches

_EXTRAS = {"onnxruntime": "onnx", "timm": "export", "transformers": "export"}


@dataclass(frozen=True)
class Verification:
    """What a library made of an export.

    `difference` is the largest relative difference of the features of the formula's tensor, and
    `cosine` that of the features of the drawn image; None where there is no such comparison.
    `problem` says why the export is not what it should be.
    """

    library: str
    difference: float | None = None
    cosine: float | None = None
    problem: str | None = None

    @property
    def line(self) -> str:
        """The result as text."""
        if self.problem is not None:
            return f"{self.library}: {self.problem}"
        found = []
        if self.difference is not None:
            found.append(f"largest relative difference {self.difference:.1e}")
        if self.cosine is not None:
            found.append(f"cosine through its own preprocessing {self.cosine:.6f}")
        return f"{self.library}: {', '.join(found) or 'names and shapes are those expected'}"


@dataclass(frozen=True)
class _Loaded:
    """A model in a library: features of normalised images, and of an image of Pillow."""

    of_tensor: Callable[[Tensor], Tensor]
    of_image: Callable[[Any], Tensor] | None


def verify(directory: Path) -> list[Verification]:
    """Load an export by each library that reads it, and compare its fingerprints.

    Raises `UserError` if the directory is not an export, or a library is not installed.
    """
    manifest = read_manifest(directory)
    mismatches = [] if manifest.target == "virtex" else _mismatches(directory, manifest)
    if mismatches:
        text = "the weights are not those of the network: " + "; ".join(map(str.strip, mismatches))
        return [Verification(WEIGHTS, problem=text)]
    return [
        _compared(directory, manifest, library, load)
        for library, load in _LOADERS[manifest.target].items()
    ] or [Verification("detectron2 (not loaded, not installed here)")]


def _mismatches(directory: Path, manifest: Manifest) -> list[str]:
    """What is missing, unexpected or of another size among the weights."""
    own = network(
        manifest.network,
        feature_size=manifest.feature_size,
        image_size=manifest.image_size,
        bands=manifest.bands,
    ).cnn.state_dict()
    names = exported_keys(manifest.network, manifest.keys_of, own)
    stored = load_tensors(directory / WEIGHTS)
    expected = {
        new: own[old].flatten() if stored.get(new, own[old]).dim() == 1 else own[old]
        for old, new in names.items()
    }
    return state_dict_mismatches(expected, stored)


def _compared(
    directory: Path,
    manifest: Manifest,
    library: str,
    load: Callable[[Path, Manifest], _Loaded],
) -> Verification:
    expected = load_tensors(directory / fingerprint.FILE)
    name = f"{library} {_imported(library).__version__}"
    try:
        loaded = load(directory, manifest)
        tensor = fingerprint.formula_tensor(manifest.bands, manifest.image_size)
        with torch.inference_mode():
            found = loaded.of_tensor(tensor)
            difference = fingerprint.relative_difference(found, expected[fingerprint.TENSOR])
            cosine = None
            if loaded.of_image is not None and fingerprint.IMAGE in expected:
                own = loaded.of_image(fingerprint.formula_image())
                cosine = fingerprint.cosine(own, expected[fingerprint.IMAGE])
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        return Verification(name, problem=f"it cannot be loaded: {error}")
    problem = None
    if not difference <= fingerprint.TOLERANCE:
        problem = (
            f"the features of the formula's tensor differ by {difference:.1e} of the largest, more"
            f" than {fingerprint.TOLERANCE:g}: these are other weights than those exported"
        )
    elif cosine is not None and not cosine >= fingerprint.LEAST_COSINE:
        problem = (
            f"the features of the drawn image have the cosine {cosine:.4f}, less than"
            f" {fingerprint.LEAST_COSINE}: the preprocessing is another one"
        )
    return Verification(name, difference, cosine, problem)


def _imported(library: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        extra = _EXTRAS.get(library, library)
        raise UserError(
            f"verifying the export requires {library}: pip install 'virtex-pretraining[{extra}]'"
        ) from error


def _timm(directory: Path, _: Manifest) -> _Loaded:
    import timm

    model = timm.create_model(f"local-dir:{directory}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    return _Loaded(model, lambda image: model(transform(image).unsqueeze(0)))


def _transformers(directory: Path, _: Manifest) -> _Loaded:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(str(directory)).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(str(directory))

    def features(pixels: Tensor) -> Tensor:
        pooled: Tensor = model(pixel_values=pixels).pooler_output
        return pooled.flatten(1)

    return _Loaded(
        features, lambda image: features(processor(image, return_tensors="pt")["pixel_values"])
    )


def _torchvision(directory: Path, manifest: Manifest) -> _Loaded:
    from torchvision import models

    model = models.get_model(manifest.network, weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(load_tensors(directory / WEIGHTS))
    model.eval()
    transform = _torchvision_transform(manifest)
    return _Loaded(model, lambda image: model(transform(image)))


def _torchvision_transform(manifest: Manifest) -> Callable[[Any], Tensor]:
    from torchvision.transforms import v2

    transform: Callable[[Any], Tensor] = v2.Compose(
        [
            v2.Resize(manifest.resize, antialias=True),
            v2.CenterCrop(manifest.image_size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(manifest.mean, manifest.std),
            lambda image: image.unsqueeze(0),
        ]
    )
    return transform


def _onnxruntime(directory: Path, manifest: Manifest) -> _Loaded:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(directory / onnx_file.FILE), providers=["CPUExecutionProvider"]
    )

    def features(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])

    transform = _torchvision_transform(manifest)
    return _Loaded(features, lambda image: features(transform(image)))


def _virtex(directory: Path, _: Manifest) -> _Loaded:
    from virtex.inference.pretrained import load

    model = load(directory)
    return _Loaded(lambda images: model.backbone(images).mean(dim=(2, 3)), model.features)


_LOADERS: dict[str, dict[str, Callable[[Path, Manifest], _Loaded]]] = {
    "timm": {"timm": _timm, "transformers": _transformers},
    "torchvision": {"torchvision": _torchvision},
    "onnx": {"onnxruntime": _onnxruntime},
    "detectron2": {},
    "virtex": {"virtex": _virtex},
}

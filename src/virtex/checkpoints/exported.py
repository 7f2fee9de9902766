"""Directories of exported backbones: their manifest, `virtex.json`, and their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field
from torch import Tensor, nn

from virtex.data.json_files import JsonFile, parse_json
from virtex.errors import UserError
from virtex.files import read_at_most
from virtex.models.other_names import detectron2_keys, timm_keys

MANIFEST = "virtex.json"
WEIGHTS = "model.safetensors"
Target = Literal["timm", "torchvision", "onnx", "detectron2", "virtex"]
_MOST_BYTES = 1 << 20
_MISSING = "reading it requires safetensors: pip install 'virtex-pretraining[export]'"


class Manifest(JsonFile):
    """What an exported backbone is, and how it takes images.

    `network` is torchvision's name. Images of `bands` bands, the numbers `band_numbers` of the
    files, or RGB if that is None, are resized bilinearly, with
    antialiasing, so that the shorter side has `resize` pixels, cropped to `image_size`, and
    normalised by `mean` and `std` of values in [0, 1]. `pixel_range` is what became 0 ... 255 in
    images of more than 8 bits, None if that does not apply.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    target: Target
    network: str
    feature_size: int = Field(gt=0)
    image_size: int = Field(gt=0)
    resize: int = Field(gt=0)
    bands: int = Field(gt=0)
    band_numbers: list[int] | None = None
    mean: list[float]
    std: list[float]
    pixel_range: object = None
    dicom_window: object = None
    iteration: int | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def keys_of(self) -> str:
        """The library whose names the weights have."""
        return "torchvision" if self.target in ("torchvision", "onnx") else self.target


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest of an exported backbone; raises `UserError`."""
    path = directory / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{directory} is not an exported backbone, as it has no {MANIFEST}; name a directory"
            " that `virtex export` wrote"
        )
    content = read_at_most(
        path, _MOST_BYTES, name=f"the manifest {path}", remedy="export the backbone again"
    )
    return parse_json(Manifest, content, str(path), "export the backbone again")


def exported_weights(directory: Path, manifest: Manifest, cnn: nn.Module) -> dict[str, Tensor]:
    """The weights under torchvision's names, for a network without classifier.

    Names that the network does not have are kept, so that they are found. Raises `UserError` if
    the file cannot be read.
    """
    stored = load_tensors(directory / WEIGHTS)
    own = cnn.state_dict()
    names = exported_keys(manifest.network, manifest.keys_of, own)
    back = {new: old for old, new in names.items()}
    weights = {back.get(name, name): value for name, value in stored.items()}
    counters = {name: own[name] for name in own if name not in names}
    return counters | {
        name: value.reshape(own[name].shape)
        if name in own and value.numel() == own[name].numel()
        else value
        for name, value in weights.items()
    }


def exported_keys(network: str, library: str, keys: Mapping[str, object]) -> dict[str, str]:
    """The name in a library's file of each weight of a network."""
    match library:
        case "timm":
            return timm_keys(network, keys)
        case "detectron2":
            return detectron2_keys(keys)
        case _:
            return {key: key for key in keys}


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; raises `UserError`."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{path}: {_MISSING}") from error
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}; export the backbone again") from error
    return tensors


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous copies of tensors to a safetensors file; raises `UserError`."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UserError(f"{path}: {_MISSING.replace('reading', 'writing')}") from error
    from virtex.files import write_whole

    copies = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    write_whole(path, save(copies, dict(metadata)))

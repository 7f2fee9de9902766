"""The backbone as an ONNX file: normalised images to features and their grid."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from virtex.checkpoints.exported import Manifest
from virtex.errors import UserError
from virtex.models.backbone import Backbone

FILE = "model.onnx"
_OPSET = 18


class _WithMean(nn.Module):
    """Normalised images (B, N, H, W) to features (B, C), and the grid (B, C, h, w)."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._cnn, self._grid = backbone.cnn, backbone.grid

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        grid = self._grid(self._cnn, images)
        return grid.mean(dim=(2, 3)), grid


def write_onnx(backbone: Backbone, manifest: Manifest, directory: Path) -> None:
    """Write `model.onnx`, for batches of any size; raises `UserError` without the package."""
    try:
        import onnx  # noqa: F401 - torch needs it
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"exporting to ONNX requires {error.name}: pip install 'virtex-pretraining[onnx]'"
        ) from error
    side = manifest.image_size
    example = torch.zeros(2, manifest.bands, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own future
        torch.onnx.export(
            _WithMean(backbone).eval(),
            (example,),
            directory / FILE,
            input_names=["images"],
            output_names=["features", "grid"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=1 << 16)}},
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )

"""Entry points of `torch.hub`, for a clone of this repository that need not be installed.

    torch.hub.load("path/to/clone", "resnet50", source="local", checkpoint="checkpoint_500000.pth")

A backbone needs only torch and torchvision; `virtex` needs all dependencies in pyproject.toml.
"""

import pathlib
import sys
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from typing import Literal

    from virtex.inference.pretrained import Pretrained

# Every callable here whose name has no underscore is an entry.
dependencies = ["torch", "torchvision"]

# torch.hub removes its own entry of sys.path again; this one stays, as virtex imports lazily.
_SOURCE = str(pathlib.Path(__file__).resolve().parent / "src")
if _SOURCE not in sys.path:
    sys.path.insert(0, _SOURCE)


def resnet50(
    checkpoint: str | pathlib.Path | None = None,
    *,
    pretrained: str | pathlib.Path | bool = False,
) -> nn.Module:
    """Torchvision's ResNet-50 without its classifier, in evaluation mode.

    It takes (B, 3, H, W) float RGB, normalised as torchvision's models expect it (pixels in [0, 1]
    less the mean 0.485, 0.456, 0.406, by the standard deviation 0.229, 0.224, 0.225), and returns
    (B, 2048) features: the mean of the last grid. Models for other bands need `virtex`.

    `checkpoint` is a checkpoint of virtex, a published one or a state dict; None leaves the weights
    untrained. `pretrained` is the same under its published name, where False stands for None.
    Raises `virtex.errors.UserError` that names missing and unexpected keys, and for True, as no
    address serves the published weights reliably.
    """
    return _backbone("resnet50", checkpoint, pretrained)


def resnet101(
    checkpoint: str | pathlib.Path | None = None,
    *,
    pretrained: str | pathlib.Path | bool = False,
) -> nn.Module:
    """Torchvision's ResNet-101 without its classifier; otherwise as `resnet50`."""
    return _backbone("resnet101", checkpoint, pretrained)


def wide_resnet50_2(
    checkpoint: str | pathlib.Path | None = None,
    *,
    pretrained: str | pathlib.Path | bool = False,
) -> nn.Module:
    """Torchvision's wide ResNet-50-2 without its classifier; otherwise as `resnet50`."""
    return _backbone("wide_resnet50_2", checkpoint, pretrained)


def virtex(
    checkpoint: str | pathlib.Path,
    config: str | pathlib.Path | None = None,
    tokenizer: str | pathlib.Path | None = None,
    max_pixels: int | None = None,
    max_image_mb: int | None = None,
    pixel_range: "tuple[float, float] | Literal['percentiles'] | None" = None,
) -> "Pretrained":
    """The whole model: captions and features of images. Arguments as for `virtex.load`."""
    from virtex.inference.pretrained import load

    return load(
        checkpoint,
        config=config,
        tokenizer=tokenizer,
        max_pixels=max_pixels,
        max_image_mb=max_image_mb,
        pixel_range=pixel_range,
    )


def _backbone(
    name: str, checkpoint: str | pathlib.Path | None, pretrained: str | pathlib.Path | bool
) -> nn.Module:
    # Imported here, so that `torch.hub.list` is fast.
    from virtex.checkpoints.file import load
    from virtex.errors import UserError
    from virtex.exporting.torchvision import load_backbone
    from virtex.models.networks import network

    path = pretrained if checkpoint is None else checkpoint
    if path is True:  # the published calls are resnet50(True) and resnet50(pretrained=True)
        raise UserError(
            f"{name}(pretrained=True) downloads nothing; give the file of the weights, such as "
            "checkpoint='bicaptioning_R_50_L1_H2048.pth'"
        )
    built = network(name, feature_size=2048, image_size=224)
    if path is not None and path is not False:
        load_backbone(built, load(pathlib.Path(path)), str(path))
    return built.cnn.eval()

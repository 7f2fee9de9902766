"""Torchvision's detectors on a pretrained backbone, and the stages of a backbone.

Pixels are normalised here, once, with the mean and deviation of the backbone; torchvision's own
transform, which would do it again, is replaced.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import paste_masks_in_image

from virtex.errors import UserError
from virtex.models.backbone import Backbone
from virtex.models.first_convolution import RGB
from virtex.models.networks import find_family, network_names, residual_grid

_STAGES = ("layer1", "layer2", "layer3", "layer4")
_SHIFTS = (2, 3, 4, 5)
"""The sides of their maps are those of the image over 2 to this power."""
PYRAMID_CHANNELS = 256
_BOX_FEATURES = 1024
"""The width of torchvision's box head."""
_MULTIPLE = 32
"""Of pixels: the sides of padded images, so that stages of the pyramid fit onto each other."""

Prediction = dict[str, Tensor]
"""`boxes` (N, 4), `labels`, `scores` (N,) and perhaps `masks` (N, 1, 28, 28), of one image."""


def check_residual(name: str, network: str, protocol: str) -> None:
    """Raise `UserError` for a network without the four stages of a ResNet."""
    family = find_family(network)
    if family.grid is not residual_grid:
        known = network_names(family=find_family("resnet50"))
        raise UserError(
            f"--checkpoint {name}: {protocol} needs the four stages of a ResNet, which {network} "
            f"does not have; supported: {', '.join(known)}"
        )


def check_rgb(name: str, bands: int, protocol: str) -> None:
    """Raise `UserError` for a backbone of other than three bands."""
    if bands != RGB:
        raise UserError(
            f"--checkpoint {name} is for images with {bands} bands (DATA.BANDS); {protocol} reads "
            "RGB alone"
        )


def stage_channels(cnn: nn.Module) -> list[int]:
    """The channels of the four stages of a residual network."""
    last: int = cnn.inplanes  # type: ignore[assignment]
    return [last // 8, last // 4, last // 2, last]


class LastStages(nn.Module):
    """The grids of the last two stages of a frozen residual network, side by side.

    The last one is enlarged to the other's size, 1/16 of the image's. Batch norm uses its running
    statistics, and nothing has a gradient.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.stages = IntermediateLayerGetter(
            backbone.cnn, return_layers={"layer3": "0", "layer4": "1"}
        )
        self.channels = sum(stage_channels(backbone.cnn)[2:])

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 RGB to (B, C, h, w)."""
        self.backbone.eval()
        found = self.stages(_normalised(self.backbone, images))
        last = nn.functional.interpolate(
            found["1"], size=found["0"].shape[2:], mode="bilinear", align_corners=False
        )
        return torch.cat((found["0"], last), dim=1)


class Detector(nn.Module):
    """Faster R-CNN or, with `masks`, Mask R-CNN, with a feature pyramid and its batch norm.

    `classes` is without the background. A frozen backbone has no gradients and keeps its batch-norm
    statistics; otherwise all its layers are trained. Pyramid and mask head have `channels`. The new
    parts are initialised from torch's random state.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        classes: int,
        masks: bool,
        frozen: bool,
        channels: int = PYRAMID_CHANNELS,
    ) -> None:
        super().__init__()
        cnn = backbone.cnn
        backbone.requires_grad_(not frozen)
        self.frozen = frozen
        pyramid = BackboneWithFPN(
            cnn,
            return_layers={stage: str(place) for place, stage in enumerate(_STAGES)},
            in_channels_list=stage_channels(cnn),
            out_channels=channels,
            norm_layer=nn.BatchNorm2d,
        )
        # As many proposals as in detectron2; torchvision's default is 2000.
        if masks:
            self.rcnn = MaskRCNN(
                pyramid,
                rpn_post_nms_top_n_train=1000,
                box_predictor=FastRCNNPredictor(_BOX_FEATURES, classes + 1),
                mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
                mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
            )
        else:
            self.rcnn = FasterRCNN(pyramid, classes + 1, rpn_post_nms_top_n_train=1000)
        self.rcnn.transform = _Normalised(backbone)
        heads = self.rcnn.roi_heads
        for pool in (heads.box_roi_pool, heads.mask_roi_pool):
            if pool is not None:
                _set_scales(pool)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The names of the losses, in the order in which they are recorded."""
        masks = ("loss_mask",) if isinstance(self.rcnn, MaskRCNN) else ()
        rpn, boxes = ("loss_objectness", "loss_rpn_box_reg"), ("loss_classifier", "loss_box_reg")
        return (*rpn, *boxes, *masks)

    def train(self, mode: bool = True) -> "Detector":
        """As `nn.Module.train`, but a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.rcnn.backbone.body.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of a batch of `examples.collate`; the module is in training mode."""
        targets = []
        counts = batch["count"].tolist()
        parts = [
            torch.split(batch[name], counts)
            for name in ("boxes", "labels", "masks")
            if name in batch
        ]
        for row, (boxes, labels, *masks) in enumerate(zip(*parts, strict=True)):
            target = {"boxes": boxes, "labels": labels}
            if masks:
                target["masks"] = _cropped(masks[0], batch["size"][row])
            targets.append(target)
        losses: dict[str, Tensor] = self.rcnn(_images(batch), targets)
        return losses

    def detect(self, batch: dict[str, Tensor]) -> list[Prediction]:
        """The detections in each image of a batch, in pixels of the batch, in evaluation mode."""
        found: list[Prediction] = self.rcnn(_images(batch))
        return found


def _set_scales(pool: nn.Module) -> None:
    """Let an RoI pooling infer its scales, 1/4 to 1/32, once and for all.

    It would infer them from the first images, which may be so small that their padding leads to
    others; they are no part of its state, so a resumed training, or another process, could differ.
    """
    side = 2 * _MULTIPLE
    maps = {str(place): torch.zeros(1, 1, side >> s, side >> s) for place, s in enumerate(_SHIFTS)}
    pool(maps, [torch.zeros(0, 4)], [(side, side)])


def paste_masks(masks: Tensor, boxes: Tensor, size: Sequence[int]) -> Tensor:
    """The masks (N, 1, 28, 28) of boxes (N, 4) in an image of this (height, width): (N, H, W)."""
    pasted: Tensor = paste_masks_in_image(masks, boxes, tuple(size))
    return pasted[:, 0] >= 0.5


def _normalised(backbone: Backbone, images: Tensor) -> Tensor:
    pixels = (images - backbone.pixel_mean) / backbone.pixel_std
    return pixels.contiguous(memory_format=backbone.layout)


def _images(batch: dict[str, Tensor]) -> list[Tensor]:
    """The images without their padding, (3, H, W) uint8 each."""
    return [
        _cropped(image, size) for image, size in zip(batch["image"], batch["size"], strict=True)
    ]


def _cropped(pixels: Tensor, size: Tensor) -> Tensor:
    height, width = size.tolist()
    return pixels[..., :height, :width]


class _Normalised(nn.Module):
    """Images of any sizes to one normalised batch, padded with zeros on the right and below.

    It takes the place of torchvision's GeneralizedRCNNTransform. Images come at their size for the
    network, and detections stay in its pixels.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", backbone.pixel_mean.clone(), persistent=False)
        self.register_buffer("pixel_std", backbone.pixel_std.clone(), persistent=False)
        self.layout = backbone.layout

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, Any]:
        """The batch (B, 3, H, W) with the images' sizes, and `targets` with masks padded alike."""
        sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
        height, width = (
            -(-max(side) // _MULTIPLE) * _MULTIPLE for side in zip(*sizes, strict=True)
        )
        batch = self.pixel_mean.new_zeros(len(images), 3, height, width)
        for into, image, (h, w) in zip(batch, images, sizes, strict=True):
            into[:, :h, :w] = (image - self.pixel_mean[0]) / self.pixel_std[0]
        return ImageList(batch.contiguous(memory_format=self.layout), sizes), targets

    def postprocess(
        self, found: list[Prediction], image_sizes: Any, original_sizes: Any
    ) -> list[Prediction]:
        """The detections as they are; both sizes are equal here."""
        assert list(image_sizes) == list(original_sizes)
        return found

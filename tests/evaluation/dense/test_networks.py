import copy

import pytest
import torch
from torchvision.ops import roi_align

from virtex.errors import UserError
from virtex.evaluation.backbones import open_backbones
from virtex.evaluation.dense.networks import Detector, LastStages, check_residual, stage_channels
from virtex.models.modes import SizesAlone
from virtex.models.networks import network


@pytest.fixture(scope="module")
def yaml(tmp_path_factory):
    """A configuration whose mean and deviation are not those of ImageNet."""
    path = tmp_path_factory.mktemp("yaml") / "model.yaml"
    normalize = "\"normalize::{'mean': (0.1, 0.2, 0.3), 'std': (0.4, 0.5, 0.6)}\""
    path.write_text(
        "DATA:\n"
        "  IMAGE_CROP_SIZE: 32\n"
        f"  IMAGE_TRANSFORM_TRAIN: [random_resized_crop, {normalize}]\n"
        f"  IMAGE_TRANSFORM_VAL: [smallest_resize, center_crop, {normalize}]\n"
        'MODEL: {VISUAL: {NAME: "torchvision::resnet18", FEATURE_SIZE: 512}}\n'
    )
    return path


@pytest.fixture(scope="module")
def backbone(yaml):
    (opened,) = open_backbones(["random"], config=yaml)
    assert opened.module.pixel_mean.flatten().tolist() == pytest.approx([25.5, 51, 76.5])
    return opened.module


@pytest.fixture(scope="module")
def detector(backbone):
    return Detector(copy.deepcopy(backbone), classes=3, masks=True, frozen=True)


IMAGES = torch.randint(0, 256, (2, 3, 64, 96), generator=torch.Generator().manual_seed(1)).byte()


@torch.no_grad()
def test_pixels_are_normalised_once_with_the_backbones_mean_and_deviation(detector, backbone):
    images, targets = detector.rcnn.transform(list(IMAGES))
    assert targets is None
    last = detector.rcnn.backbone.body(images.tensors)["3"]
    assert torch.allclose(last, backbone(IMAGES), atol=1e-5)


def test_padding_is_black_after_normalisation(detector):
    images, _ = detector.rcnn.transform([IMAGES[0, :, :40, :50], IMAGES[1, :, :, :33]])
    assert images.tensors.shape == (2, 3, 64, 64)
    assert images.image_sizes == [(40, 50), (64, 33)]
    assert not images.tensors[0, :, 40:].any()
    assert not images.tensors[0, :, :, 50:].any()


@pytest.mark.parametrize("name", ["box_roi_pool", "mask_roi_pool"])
def test_regions_are_pooled_at_the_scale_of_their_map_whatever_image_comes_first(detector, name):
    """An image of 40 pixels of height is padded to 64, so that 16 / 40 is close to one half."""
    pool = copy.deepcopy(getattr(detector.rcnn.roi_heads, name))
    maps = {str(place): torch.rand(1, 2, 64 >> s, 64 >> s) for place, s in enumerate((2, 3, 4, 5))}
    boxes = torch.tensor([[3.0, 5.0, 30.0, 36.0]])
    expected = roi_align(maps["0"], [boxes], pool.output_size, 1 / 4, pool.sampling_ratio)
    assert torch.equal(pool(maps, [boxes], [(40, 64)]), expected)


def test_a_frozen_backbone_keeps_weights_and_statistics(detector):
    detector.train()
    body = detector.rcnn.backbone.body
    assert not any(part.training for part in body.modules())
    assert detector.rcnn.backbone.fpn.training
    assert not any(parameter.requires_grad for parameter in body.parameters())
    assert any(parameter.requires_grad for parameter in detector.rcnn.backbone.fpn.parameters())


@torch.no_grad()
def test_the_last_two_stages_are_those_of_the_backbone_side_by_side(backbone):
    stages = LastStages(copy.deepcopy(backbone).train())
    grid = stages(IMAGES)
    assert grid.shape == (2, stages.channels, 4, 6)
    last = backbone(IMAGES)
    enlarged = torch.nn.functional.interpolate(
        last, size=(4, 6), mode="bilinear", align_corners=False
    )
    assert torch.allclose(grid[:, 256:], enlarged, atol=1e-5)
    assert not stages.backbone.training


def test_channels_of_wide_and_deep_networks():
    with SizesAlone():
        built = network("resnet50", feature_size=2048, image_size=32)
    assert stage_channels(built.cnn) == [256, 512, 1024, 2048]


@pytest.mark.parametrize("name", ["vit_b_32", "convnext_tiny", "regnet_y_400mf"])
def test_other_networks_are_refused(name):
    with pytest.raises(
        UserError, match=f"detection needs the four stages of a ResNet, which {name}"
    ):
        check_residual("random", name, "detection")

import pytest
import torch
from tests import small
from tests.small import state_of
from torch import nn

from virtex.errors import UserError
from virtex.models.backbone import Backbone, network_names, residual_network

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels(rows=2, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, side, side), generator=generator, dtype=torch.uint8)


def normalised(images):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    cnn = residual_network("resnet18", feature_size=512)
    return Backbone(cnn, mean=MEAN, std=STD).eval()


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


@torch.no_grad()
def test_grid_has_the_last_stages_shape(resnet):
    assert resnet(pixels(2, 64)).shape == (2, 512, 2, 2)


@torch.no_grad()
def test_grid_is_the_networks_own_before_pooling(resnet):
    """With the classifier an identity, torchvision's forward is the mean over the grid."""
    images = normalised(pixels())
    pooled = resnet(images).mean(dim=(2, 3))
    # The same operations; only the mean over the grid may add up in another order.
    torch.testing.assert_close(pooled, resnet.cnn(images), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_bytes_equal_normalised_floats():
    visual = small.backbone().eval()
    images = pixels(side=small.SIDE)
    mean, std = (
        values.view(1, 3, 1, 1) for values in map(torch.tensor, [(0.5, 0.4, 0.3), (0.2, 0.25, 0.3)])
    )
    got, expected = visual(images), visual((images / 255 - mean) / std)
    # A few float32 roundings (6e-8 each) of inputs up to 2.5, through two small convolutions.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_float_input_is_not_normalised_again():
    visual = small.backbone().eval()
    assert not torch.allclose(visual(pixels(side=16)), visual(pixels(side=16).float()))


@torch.no_grad()
def test_memory_layout_changes_rounding_alone():
    images = pixels(4, small.SIDE)
    last, first = (small.backbone(channels_last=choice).eval() for choice in (True, False))
    assert last.cnn.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert first.cnn.conv1.weight.is_contiguous()
    # float32 sums of at most 36 products of order one, in another order.
    torch.testing.assert_close(last(images), first(images), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_images_features_do_not_depend_on_its_layout_in_memory(resnet):
    images = pixels()
    assert torch.equal(resnet(images), resnet(images.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_start_at_zero_if_asked(zero):
    """So that every stage begins as its shortcut (Goyal et al., 2017, section 5.1)."""
    cnn = residual_network("resnet18", feature_size=512, zero_init_residual=zero)
    ends = [block.bn2.weight for stage in (cnn.layer1, cnn.layer4) for block in stage]
    assert len(ends) == 4
    assert {bool(weight.any()) for weight in ends} == {not zero}


def test_classifier_has_no_parameters(resnet):
    assert not any(name.startswith("cnn.fc") for name in resnet.state_dict())


def test_pixel_statistics_are_no_part_of_the_state(resnet):
    assert all(name.startswith("cnn.") for name in resnet.state_dict())


def test_frozen_backbone_keeps_weights_and_statistics():
    visual = small.backbone(frozen=True)
    before = state_of(visual)
    projection = nn.Conv2d(small.CHANNELS, 1, 1)
    parameters = [*visual.parameters(), *projection.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=1.0, weight_decay=0.1)
    for mode in (True, False, True):
        visual.train(mode)
        projection(visual(pixels(side=small.SIDE))).sum().backward()
        optimizer.step()
    assert changed(visual, before) == set()
    assert not any(part.training for part in visual.modules())


def test_thawed_backbone_does_not():
    visual = small.backbone().train()
    before = state_of(visual)
    visual(pixels(side=small.SIDE)).square().sum().backward()
    assert {"cnn.bn1.running_mean", "cnn.bn1.running_var"} <= changed(visual, before)
    assert all(p.grad is not None for p in visual.parameters())
    visual.eval()
    before = state_of(visual)
    visual(pixels(side=small.SIDE))
    assert changed(visual, before) == set()


def test_frozen_backbone_stays_so_inside_a_model():
    model = small.captioning(frozen=True).train()
    assert model.textual.training
    assert not any(part.training for part in model.visual.modules())


def test_wrong_feature_size_names_the_right_one():
    with pytest.raises(UserError, match=r"is 2048, .*512 channels; set .*FEATURE_SIZE 512"):
        residual_network("resnet18", feature_size=2048)


@pytest.mark.parametrize("name", ["resnet19", "vgg16", "ResNet18", ""])
def test_unknown_name_lists_the_known(name):
    with pytest.raises(UserError, match=rf"network '{name}'; choose one of .*resnet50.*"):
        residual_network(name, feature_size=512)


def test_the_published_networks_are_among_the_names():
    assert {"resnet50", "resnet101", "wide_resnet50_2"} <= set(network_names())


def test_weights_that_cannot_be_had_are_an_error_with_a_remedy(tmp_path, monkeypatch):
    (tmp_path / "file").touch()  # no directory can be made below a file, nor anything fetched
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"put the file into .*file.*MODEL\.VISUAL\.PRETRAINED fal"):
        residual_network("resnet18", feature_size=512, pretrained=True)

import copy

import pytest
import torch
from tests import small
from tests.small import assert_same, state_of
from torch import nn

from virtex.models.backbone import Backbone
from virtex.models.networks import network

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# A small member of each family, and its channels.
MEMBERS = {
    "resnet18": 512,
    "resnext50_32x4d": 2048,
    "regnet_y_400mf": 440,
    "convnext_tiny": 768,
    "vit_b_32": 768,
}
SIDE = 64


def pixels(rows=2, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (rows, 3, side, side), generator=generator, dtype=torch.uint8)


def normalised(images):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images / 255 - mean) / std


def as_backbone(built, **options):
    return Backbone(built.cnn, built.grid, mean=MEAN, std=STD, **options)


@pytest.fixture(scope="module", params=MEMBERS)
def member(request):
    """One of the networks; what changes it takes a copy."""
    torch.manual_seed(0)
    name = request.param
    size = MEMBERS[name]
    return network(name, feature_size=size, image_size=SIDE, zero_init_residual=False)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return as_backbone(network("resnet18", feature_size=512, image_size=32)).eval()


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not value.equal(before[name])}


def step(visual, channels):
    """One step of everything on a loss of the grid, through a projection that learns too."""
    projection = nn.Conv2d(channels, 4, 1)
    parameters = [*visual.parameters(), *projection.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1, weight_decay=0.1)
    projection(visual(pixels(side=SIDE))).square().sum().backward()
    optimizer.step()


@torch.no_grad()
def test_grid_is_what_torchvision_itself_computes(member):
    images = normalised(pixels(side=SIDE))
    cnn = member.cnn.eval()
    grid = as_backbone(member).eval()(pixels(side=SIDE))
    assert grid.shape == (2, MEMBERS[member.name], 2, 2)
    if member.name.startswith("vit"):
        seen = []
        handle = cnn.encoder.register_forward_hook(lambda *parts: seen.append(parts[-1]))
        cnn(images)
        handle.remove()
        positions = [grid[:, :, row, column] for row in range(2) for column in range(2)]
        got, expected = torch.stack(positions, 1), seen[0][:, 1:]
    elif member.name.startswith("convnext"):
        # Pooled before the norm, so alike where the grid has one position.
        corner = images[:, :, :32, :32]
        got, expected = member.grid(cnn, corner).flatten(1), cnn(corner)
    else:
        got, expected = grid.mean(dim=(2, 3)), cnn(images)
    # The same operations; only a mean over the grid may add up in another order.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


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


def test_pixel_statistics_are_no_part_of_the_state(resnet):
    assert all(name.startswith("cnn.") for name in resnet.state_dict())


def test_frozen_backbone_keeps_weights_and_statistics(member):
    visual = as_backbone(copy.deepcopy(member), frozen=True)
    before = state_of(visual)
    step(visual.train(), MEMBERS[member.name])
    visual.eval()(pixels(side=SIDE))
    step(visual.train(), MEMBERS[member.name])
    assert_same(visual.state_dict(), before)
    assert not any(part.training for part in visual.modules())


def test_thawed_backbone_learns_with_every_parameter(member):
    visual = as_backbone(copy.deepcopy(member)).train()
    before = state_of(visual)
    step(visual, MEMBERS[member.name])
    unused = [name for name, p in visual.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []
    assert changed(visual, before) == set(before)


def test_thawed_backbone_keeps_its_statistics_in_evaluation():
    visual = small.backbone().train()
    before = state_of(visual)
    visual(pixels(side=small.SIDE))
    assert {"cnn.bn1.running_mean", "cnn.bn1.running_var"} <= changed(visual, before)
    visual.eval()
    before = state_of(visual)
    visual(pixels(side=small.SIDE))
    assert changed(visual, before) == set()


def test_frozen_backbone_stays_so_inside_a_model():
    model = small.captioning(frozen=True).train()
    assert model.textual.training
    assert not any(part.training for part in model.visual.modules())

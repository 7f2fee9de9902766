import math

import pytest
import torch
import torch.nn.functional as F
from tests import tiny_network
from torch import nn

from virtex.models.first_convolution import (
    convert_weights,
    first_convolution,
    fit_first_convolution,
    take_bands,
)
from virtex.models.modes import SizesAlone
from virtex.models.networks import network


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("resnet18", 512, "conv1"),
        (tiny_network.NAME, tiny_network.FEATURE_SIZE, "stem.0"),
        ("convnext_tiny", 768, "features.0.0"),
        ("vit_b_16", 768, "conv_proj"),
    ],
)
def test_every_design_takes_any_number_of_bands(name, size, first):
    with SizesAlone():
        cnn = network(name, feature_size=size, image_size=64, bands=5).cnn
        assert first_convolution(cnn) == first
        features = network(name, feature_size=size, image_size=64, bands=5)
        images = torch.empty(2, 5, 64, 64)
        assert features.grid(features.cnn, images).shape[:2] == (2, size)
    assert cnn.get_submodule(first).in_channels == 5


def test_three_bands_change_neither_weights_nor_random_numbers():
    def built(**options):
        torch.manual_seed(0)
        made = network("resnet18", feature_size=512, image_size=64, **options)
        return made.cnn.state_dict(), torch.rand(1)

    (one, after), (other, again) = built(), built(bands=3)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(after, again)


@pytest.mark.parametrize(
    ("options", "std"),
    [
        ({"kernel_size": 7, "stride": 2, "bias": False}, math.sqrt(2 / (512 * 49))),
        ({"kernel_size": 4, "stride": 4}, 0.02),
        ({"kernel_size": 16, "stride": 16}, math.sqrt(1 / (6 * 256))),
    ],
)
def test_new_weights_have_the_deviation_of_their_design(options, std):
    cnn = nn.Sequential(nn.Conv2d(3, 512, **options))
    bias = cnn[0].bias
    torch.manual_seed(0)
    take_bands(cnn, 6)
    weight = cnn[0].weight.detach()
    # At least 49,000 draws: the deviation is within 2 % by six standard errors.
    assert float(weight.std()) == pytest.approx(std, rel=0.02)
    assert float(weight.mean()) == pytest.approx(0, abs=0.03 * std)
    assert bias is None or torch.equal(cnn[0].bias, bias)


@pytest.mark.parametrize("bands", [1, 2, 4, 7])
def test_converted_weights_keep_the_output_of_bands_that_are_alike(bands):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 3, 5, 5, generator=generator)
    grey = torch.randn(2, 1, 9, 9, generator=generator)
    expected = F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    found = F.conv2d(grey.expand(-1, bands, -1, -1), convert_weights(weight, bands))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if bands > 3:
        torch.testing.assert_close(convert_weights(weight, bands)[:, :3], weight * 3 / bands)


def test_only_weights_for_rgb_are_converted():
    cnn = nn.Sequential(nn.Conv2d(5, 8, 3))
    given = {"visual.0.weight": torch.ones(8, 3, 3, 3), "visual.0.bias": torch.zeros(8)}
    fitted, line = fit_first_convolution(cnn, given, "visual.")
    assert fitted["visual.0.weight"].shape == (8, 5, 3, 3)
    assert "of 5 bands, the first three take its filters, others their mean" in line
    for weights in (fitted, {"visual.0.weight": torch.ones(8, 4, 3, 3)}, {}):
        assert fit_first_convolution(cnn, weights, "visual.") == (weights, None)

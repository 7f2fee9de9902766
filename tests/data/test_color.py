import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from virtex.data import color


def difference(image, change, reference, amount):
    """Absolute differences from torchvision's tensor function, which truncates where we round."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = reference(tensor, amount).permute(1, 2, 0).numpy()
    result = change(image, amount)
    assert result.dtype == np.uint8
    return np.abs(result.astype(int) - expected)


@pytest.fixture(params=["photograph", "noise"])
def image(request, photograph):
    if request.param == "photograph":
        return photograph
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_changes_equal_torchvision_to_two_levels(image, name, factor):
    change, reference = getattr(color, name), getattr(functional, name)
    # One for the rounding of the result, one for that of the grey it is mixed with.
    assert difference(image, change, reference, factor).max() <= 2


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.03, 0.1])
def test_hue_equals_torchvision_to_the_resolution_of_bytes(image, shift):
    found = difference(image, color.adjust_hue, functional.adjust_hue, shift)
    # A step of hue, 1/256 of the circle, is 6 levels of the fullest colours.
    assert found.max() <= 10
    assert found.mean() < 1.5


def test_greys_have_no_saturation_or_hue_to_change(photograph):
    grey = np.repeat(photograph[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(color.adjust_hue(grey, 0.1), grey)
    assert np.abs(color.adjust_saturation(grey, 1.4).astype(int) - grey).max() <= 1


def test_the_given_image_is_left_alone(photograph):
    before = photograph.copy()
    color.adjust_brightness(photograph, 0.5)
    color.adjust_contrast(photograph, 0.5)
    color.adjust_saturation(photograph, 0.5)
    color.adjust_hue(photograph, 0.5)
    np.testing.assert_array_equal(photograph, before)

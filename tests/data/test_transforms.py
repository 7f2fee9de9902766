import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional

from virtex.data import transforms
from virtex.data.transforms import Augmented
from virtex.errors import UserError


def rng(seed=0):
    return np.random.default_rng(seed)


def coordinates(height, width):
    """An image whose first two channels are a pixel's row and column."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)


sides = st.integers(1, 255)


@given(sides, sides, st.integers(0, 100))
def test_a_random_crop_fits_and_has_its_size(height, width, seed):
    crop = transforms.RandomResizedCrop(8)
    result = crop(Augmented(coordinates(height, width)), rng(seed)).image
    assert result.shape == (8, 8, 3)
    assert result[..., 0].max() < height
    assert result[..., 1].max() < width


def test_random_crops_have_areas_and_ratios_in_their_ranges():
    crop = transforms.RandomResizedCrop(8, scale=(0.3, 0.6), ratio=(0.8, 1.25))
    parts = np.array([crop._part(400, 600, rng(seed)) for seed in range(2000)])
    _, _, height, width = parts.T
    area, ratio = height * width / (400 * 600), width / height
    # Sides are rounded to whole pixels: half a pixel of about 250.
    assert area.min() > 0.3 - 0.005
    assert area.max() < 0.6 + 0.005
    assert ratio.min() > 0.8 * 0.995
    assert ratio.max() < 1.25 * 1.005
    # Uniform area, log-uniform ratio: 4 standard errors of 2000 draws.
    assert area.mean() == pytest.approx(0.45, abs=4 * 0.3 / 12**0.5 / 2000**0.5)
    spread = 2 * np.log(1.25) / 12**0.5
    assert np.log(ratio).mean() == pytest.approx(0, abs=4 * spread / 2000**0.5)


def test_random_crops_reach_every_edge():
    crop = transforms.RandomResizedCrop(8, scale=(0.25, 0.25), ratio=(1, 1))
    tops, lefts, _, _ = zip(*[crop._part(6, 8, rng(seed)) for seed in range(300)], strict=True)
    # A square of 48 / 4 = 12 pixels has sides of 3.
    assert (set(tops), set(lefts)) == (set(range(4)), set(range(6)))


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 10)])
def test_images_too_long_for_any_draw_give_their_middle(height, width):
    crop = transforms.RandomResizedCrop(8, scale=(1, 1))
    top, left, part_height, part_width = crop._part(height, width, rng())
    assert {part_height, part_width} == {10, 13}
    assert (top, left) == ((height - part_height) // 2, (width - part_width) // 2)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_flips_happen_with_their_probability_and_are_recorded(p, photograph):
    flip = transforms.HorizontalFlip(p)
    results = [flip(Augmented(photograph), rng(seed)) for seed in range(400)]
    for result in results:
        expected = photograph[:, ::-1] if result.mirrored else photograph
        np.testing.assert_array_equal(result.image, expected)
    mirrored = np.mean([result.mirrored for result in results])
    assert mirrored == pytest.approx(p, abs=4 * (p * (1 - p) / 400) ** 0.5)


def test_two_flips_are_none(photograph):
    flip = transforms.HorizontalFlip(1.0)
    result = flip(flip(Augmented(photograph), rng()), rng())
    assert not result.mirrored
    np.testing.assert_array_equal(result.image, photograph)


def test_jitter_happens_with_its_probability(photograph):
    jitter = transforms.ColorJitter()
    small = Augmented(photograph[:4, :4].copy())
    changed = [(jitter(small, rng(s)).image != small.image).any() for s in range(400)]
    # A drawn change can be too small to show; hence one more percent below.
    assert 0.8 - 0.01 - 4 * 0.02 < np.mean(changed) < 0.8 + 4 * 0.02


def test_jitter_of_nothing_is_nothing(photograph):
    jitter = transforms.ColorJitter(brightness=0, contrast=0, saturation=0, hue=0, p=1)
    np.testing.assert_array_equal(jitter(Augmented(photograph), rng()).image, photograph)


def test_jitter_draws_again_and_keeps_the_mirror_flag():
    red = Augmented(np.full((2, 2, 3), (200, 40, 40), np.uint8), mirrored=True)
    results = [transforms.ColorJitter(p=1)(red, rng(seed)) for seed in range(50)]
    assert len({result.image[0, 0].tobytes() for result in results}) > 45
    assert all(result.mirrored for result in results)


@given(sides, sides, st.integers(1, 40))
def test_the_shorter_side_becomes_the_size(height, width, size):
    image = coordinates(min(height, 60), min(width, 60))
    resized = transforms.SmallestResize(size)(Augmented(image), rng()).image
    assert min(resized.shape[:2]) == size
    longer = max(image.shape[:2]) / min(image.shape[:2]) * size
    assert abs(max(resized.shape[:2]) - longer) <= 0.5


@pytest.mark.parametrize(("height", "width"), [(6, 9), (7, 4), (4, 4)])
def test_the_centre_crop_is_the_middle(height, width):
    image = coordinates(height, width)
    result = transforms.CenterCrop(4)(Augmented(image), rng()).image
    top, left = (height - 4) // 2, (width - 4) // 2
    np.testing.assert_array_equal(result, image[top : top + 4, left : left + 4])
    assert result.flags.c_contiguous


def test_a_centre_crop_larger_than_the_image_is_an_error():
    with pytest.raises(UserError, match="5 pixels does not fit into 9 x 4"):
        transforms.CenterCrop(5)(Augmented(coordinates(4, 9)), rng())


@pytest.mark.parametrize("size", [(45, 60), (30, 40), (22, 30), (10, 12), (90, 120), (150, 200)])
def test_resizing_is_close_to_pillows_antialiased(photograph, size):
    expected = Image.fromarray(photograph).resize(size[::-1], Image.Resampling.BILINEAR)
    error = transforms.resize(photograph, *size).astype(int) - np.asarray(expected)
    assert np.abs(error).mean() < 2  # halving weighs pixels as boxes, Pillow as triangles


@pytest.mark.parametrize("size", [21, 45, 60, 87, 120])
def test_the_resize_of_validation_is_torchvisions(size):
    """Also below a factor of two, where plain bilinear passes over pixels."""
    noise = rng().integers(0, 256, (90, 120, 3), np.uint8)
    expected = torchvision.transforms.Resize(size)(Image.fromarray(noise))
    resized = transforms.SmallestResize(size)(Augmented(noise), rng()).image
    np.testing.assert_array_equal(resized, np.asarray(expected))


def test_shrinking_takes_every_pixel_into_account():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    for size in (32, 16, 8, 4):  # plain bilinear gives black, white or a beat
        assert np.abs(transforms.resize(stripes, size, size).astype(int) - 127.5).max() <= 1


TRANSFORMS = [
    transforms.RandomResizedCrop(16),
    transforms.HorizontalFlip(),
    transforms.ColorJitter(),
    transforms.SmallestResize(16),
    transforms.CenterCrop(16),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda transform: type(transform).__name__)
def test_a_transform_is_a_function_of_image_and_generator(transform, photograph):
    before = photograph.copy()
    for seed in range(10):
        one, other = (transform(Augmented(photograph), rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.image, other.image)
        assert one.mirrored == other.mirrored
    np.testing.assert_array_equal(photograph, before)


@pytest.mark.parametrize("shape", [(1, 200_000, 3), (200_000, 1, 3)])
def test_strips_of_pixels_give_their_middle(shape):
    image = np.zeros(shape, np.uint8)
    image.reshape(-1, 3)[99_990:100_010] = 255
    resized = transforms.SmallestResize(32)(Augmented(image), rng()).image
    assert sorted(resized.shape) == [3, 32, 32 * 64]
    assert transforms.CenterCrop(32)(Augmented(resized), rng()).image.min() == 255


# Colours


def difference(image, change, reference, amount):
    """Absolute differences from torchvision's tensor function, which truncates where we round."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    expected = reference(tensor, amount).permute(1, 2, 0).numpy()
    result = change(image, amount)
    assert result.dtype == np.uint8
    return np.abs(result.astype(int) - expected)


@pytest.fixture(params=["photograph", "noise"])
def colored(request, photograph):
    if request.param == "photograph":
        return photograph
    return np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_changes_equal_torchvision_to_two_levels(colored, name, factor):
    change, reference = getattr(transforms, name), getattr(functional, name)
    # One for the rounding of the result, one for that of the grey it is mixed with.
    assert difference(colored, change, reference, factor).max() <= 2


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.03, 0.1])
def test_hue_equals_torchvision_to_the_resolution_of_bytes(colored, shift):
    found = difference(colored, transforms.adjust_hue, functional.adjust_hue, shift)
    # A step of hue, 1/256 of the circle, is 6 levels of the fullest colours.
    assert found.max() <= 10
    assert found.mean() < 1.5


def test_greys_have_no_saturation_or_hue_to_change(photograph):
    grey = np.repeat(photograph[:, :, :1], 3, axis=2)
    np.testing.assert_array_equal(transforms.adjust_hue(grey, 0.1), grey)
    assert np.abs(transforms.adjust_saturation(grey, 1.4).astype(int) - grey).max() <= 1


def test_the_input_is_not_changed(photograph):
    before = photograph.copy()
    transforms.adjust_brightness(photograph, 0.5)
    transforms.adjust_contrast(photograph, 0.5)
    transforms.adjust_saturation(photograph, 0.5)
    transforms.adjust_hue(photograph, 0.5)
    np.testing.assert_array_equal(photograph, before)


@pytest.mark.parametrize("bands", [1, 2, 5, 8])
def test_bands_are_transformed_as_each_would_be_alone(bands):
    image = np.random.default_rng(0).integers(0, 256, (70, 90, bands)).astype(np.uint8)
    steps = [
        transforms.RandomResizedCrop(24),
        transforms.HorizontalFlip(1.0),
        transforms.SmallestResize(32),
        transforms.CenterCrop(40),
    ]
    for step in steps:
        result = step(transforms.Augmented(image), np.random.default_rng(1)).image
        for band in range(bands):
            alone = np.repeat(image[:, :, band : band + 1], 3, axis=2)
            expected = step(transforms.Augmented(alone), np.random.default_rng(1)).image
            np.testing.assert_array_equal(result[:, :, band], expected[:, :, 0])


def test_colour_jitter_of_bands_changes_brightness_and_contrast_alone():
    image = np.random.default_rng(0).integers(60, 200, (9, 8, 5)).astype(np.uint8)
    jitter = transforms.ColorJitter(0.2, 0, 0, 0, p=1)
    result = jitter(transforms.Augmented(image), np.random.default_rng(1)).image
    factor = np.random.default_rng(1)
    factor.random()
    np.testing.assert_allclose(result, image * factor.uniform(0.8, 1.2), atol=0.51)
    contrast = transforms.adjust_contrast(image, 0.5)
    np.testing.assert_allclose(contrast, (image.mean() + image) / 2, atol=0.51)

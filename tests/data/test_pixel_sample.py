import re

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.data.test_pixel_values import with_chunk

from virtex.data.image_limits import DEFAULT_LIMITS
from virtex.data.images import BadImage, read_image
from virtex.data.pixel_sample import (
    band_statistics,
    choose_ranges,
    evenly_spaced,
    pixel_lines,
    range_problem,
    sample_pixels,
)
from virtex.data.pixel_values import PixelSettings
from virtex.errors import UserError

RNG = np.random.default_rng(0)
MOST = (0.5, 99.5)


@pytest.fixture
def saved(tmp_path):
    """A function that writes values as PNG, or as TIFF where they are not unsigned."""

    def save(*images):
        paths = []
        for values in images:
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.png"
            if values.dtype.kind == "u":
                cv2.imwrite(str(path), values)
            else:
                Image.fromarray(values).save(path, "TIFF")
            paths.append(path)
        return paths

    return save


def chosen(paths, settings=PixelSettings()):  # noqa: B008 - frozen
    return choose_ranges(sample_pixels(paths, settings, DEFAULT_LIMITS), MOST)


def grey(highest, lowest=0):
    values = RNG.integers(lowest, highest + 1, (30, 40)).astype(np.uint16)
    values[0, 0] = highest
    return values


def test_positions_are_evenly_spaced():
    assert evenly_spaced(3) == [0, 1, 2]
    assert evenly_spaced(0) == []
    found = evenly_spaced(1000, 64)
    assert len(found) == 64
    assert found[0] == 0
    assert set(np.diff(found)) == {15, 16}


@pytest.mark.parametrize(
    ("highest", "range_"), [(200, 255), (256, 511), (4095, 4095), (4096, 8191), (65535, 65535)]
)
def test_unsigned_values_have_the_range_of_the_fewest_bits(saved, highest, range_):
    paths = saved(grey(highest // 2), grey(highest), np.zeros((4, 4, 3), np.uint8))
    assert chosen(paths) == ((0, range_),)


def test_no_range_is_chosen_where_all_images_have_8_bits(saved):
    assert chosen(saved(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), np.uint8))) is None


def test_significant_bits_of_a_dark_image_count(saved):
    (path,) = saved(grey(900))
    path.write_bytes(with_chunk(path.read_bytes(), b"sBIT", b"\x0c"))
    assert chosen([path]) == ((0, 4095),)


def test_a_small_part_of_the_bits_has_the_range_of_its_percentiles(saved):
    values = grey(31000, 30000)
    values[3, :4] = 60000
    (path,) = saved(values)
    values = np.asarray(Image.open(path)).astype(float)
    expected = np.percentile(values, MOST)
    assert chosen([path]) == (pytest.approx(tuple(expected), rel=1e-3),)


def test_signed_and_floating_point_values_have_the_range_of_percentiles(saved):
    values = RNG.normal(size=(50, 60)).astype(np.float32)
    expected = np.percentile(values, MOST)
    assert chosen(saved(values)) == (pytest.approx(tuple(expected), rel=1e-3),)


def test_values_without_a_range_in_common_are_refused(saved):
    with pytest.raises(UserError, match=r"different types \(float32, uint16\).*DATA\.PIXEL_RANGE"):
        chosen(saved(grey(4095), np.zeros((4, 4), np.float32)))


def test_each_chosen_band_has_its_range(saved):
    colour = np.dstack((grey(60000), grey(4095), grey(1000)))  # blue, green, red in OpenCV
    settings = PixelSettings(bands=(1, 3))
    assert chosen(saved(colour), settings) == ((0, 1023), (0, 65535))


def test_a_range_that_does_not_fit_is_reported(saved):
    paths = saved(grey(4095), grey(4095))

    def problem(ranges):
        settings = PixelSettings(ranges)
        return range_problem(sample_pixels(paths, settings, DEFAULT_LIMITS), settings)

    assert problem(((0, 4095),)) is None
    assert problem("percentiles") is None
    assert re.search(
        r"0 … 65535 become 0 … 255, but most of them lie in .*, 6\.2 % of that;", problem(None)
    )
    assert "5000 … 6000 become 0 … 255, but 100.0 % of them lie outside" in problem(((5000, 6000),))
    assert re.search(r"but 7\d\.\d % of them lie outside, most in ", problem(((0, 1023),)))
    assert pixel_lines(paths, PixelSettings(((0, 4095),)), DEFAULT_LIMITS) == []
    assert pixel_lines(paths, PixelSettings(), DEFAULT_LIMITS) == [problem(None)]


def test_a_sample_without_readable_images_raises_the_first_error(tmp_path):
    paths = [tmp_path / "one.png", tmp_path / "two.png"]
    for path in paths:
        path.write_bytes(b"no image")
    with pytest.raises(BadImage, match=r"one\.png"):
        sample_pixels(paths, PixelSettings(), DEFAULT_LIMITS)
    assert pixel_lines(paths, PixelSettings(), DEFAULT_LIMITS) == []


def test_statistics_of_bands_are_those_of_the_mapped_images(saved):
    settings = PixelSettings(((0, 65535), (0, 4095)), bands=(1, 2))
    paths = saved(*(np.dstack((grey(9), grey(4095), grey(60000 + n))) for n in range(3)))
    stack = np.concatenate([read_image(p, DEFAULT_LIMITS, settings).reshape(-1, 2) for p in paths])
    mean, std = band_statistics(paths, settings, DEFAULT_LIMITS)
    assert mean == pytest.approx(stack.mean(axis=0) / 255, abs=1e-4)
    assert std == pytest.approx(stack.std(axis=0) / 255, abs=1e-4)
    flat = PixelSettings(((0, 65535),), bands=(3, 1))
    with pytest.raises(UserError, match="band 3 has the same value everywhere"):
        band_statistics(paths, flat, DEFAULT_LIMITS)

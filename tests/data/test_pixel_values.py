import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from virtex.data.images import BadImage, decode, from_pillow, read_image
from virtex.data.pillow_images import significant_bits
from virtex.data.pixel_values import PixelSettings, Raster, to_eight_bits

RNG = np.random.default_rng(0)
SIXTEEN = RNG.integers(0, 65536, (12, 10, 4)).astype(np.uint16)


def slow(values, low, high, one):
    """The mapping as its definition has it, value by value."""
    mapped = [int(256 * (value - low) // (high - low + one)) for value in values.ravel().tolist()]
    return np.clip(mapped, 0, 255).reshape(values.shape)


@pytest.mark.parametrize(
    "dtype", [np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64, ">u2"]
)
@pytest.mark.parametrize("ranges", [((0, 4095),), ((-100, 900),), ((0, 10), (5, 77), (-3, 60000))])
def test_values_are_mapped_as_defined(dtype, ranges):
    signed = np.dtype(dtype).kind != "u"
    values = RNG.integers(-9000 if signed else 0, 30000, (6, 5, 3)).astype(dtype)
    values[0, 0] = (0, 10, 4095)
    mapped = to_eight_bits(Raster(values, None), PixelSettings(ranges))
    one = int(np.dtype(dtype).kind != "f")
    for band in range(3):
        low, high = ranges[band] if len(ranges) > 1 else ranges[0]
        expected = slow(values[:, :, band].astype(np.float64), low, high, one)
        np.testing.assert_array_equal(mapped[:, :, band], expected)


@given(st.integers(8, 16))
def test_a_range_of_whole_bits_keeps_the_upper_eight(bits):
    values = np.arange(2**bits, dtype=np.uint16)[None, :, None]
    mapped = to_eight_bits(Raster(values, (0, 2**bits - 1)), PixelSettings())
    np.testing.assert_array_equal(mapped, np.repeat(values >> (bits - 8), 3, axis=2))


def test_eight_bits_are_never_mapped():
    values = RNG.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    for ranges in (None, ((0, 10),), "percentiles"):
        mapped = to_eight_bits(Raster(values), PixelSettings(ranges))
        np.testing.assert_array_equal(mapped, values)


def test_percentiles_are_those_of_each_image_and_of_each_chosen_band():
    values = np.stack([np.linspace(0, 1, 101), np.linspace(5, 9, 101)], axis=1)[None]
    each = PixelSettings("percentiles", (10, 90), bands=(1, 2))
    mapped = to_eight_bits(Raster(values.astype(np.float32), None), each)
    for band in range(2):
        assert mapped[0, :11, band].max() == 0
        assert mapped[0, 91:, band].min() == 255
        assert abs(int(mapped[0, 50, band]) - 128) <= 1
    # Colours keep their relation where no bands are chosen.
    rgb = np.repeat(np.linspace(0, 1, 101)[None, :, None], 3, axis=2) * [1, 0.5, 0.25]
    mapped = to_eight_bits(Raster(rgb, None), PixelSettings("percentiles", (0, 100)))
    assert mapped[0, 100].tolist() == [255, 128, 64]


def test_values_without_a_range_and_values_that_are_not_finite_are_refused():
    values = np.zeros((3, 4, 1), np.float32)
    with pytest.raises(
        ValueError, match=r"32-bit floating-point numbers of unknown range.*PIXEL_R"
    ):
        to_eight_bits(Raster(values, None), PixelSettings())
    values[1, 2], values[2, 0] = np.nan, np.inf
    with pytest.raises(
        ValueError, match=r"2 of its 12 values are NaN or infinite.*row 2, column 3"
    ):
        to_eight_bits(Raster(values, None), PixelSettings(((0, 1),)))
    values[:] = 0
    with pytest.raises(ValueError, match=r"it has 1 bands, but DATA.PIXEL_RANGE .* has 2 ranges"):
        to_eight_bits(Raster(values, None), PixelSettings(((0, 1), (2, 3))))


def png(values):
    """A PNG file as OpenCV writes it, of grey, RGB or RGBA."""
    shown = values if values.ndim == 2 else values[:, :, [2, 1, 0, 3][: values.shape[2]]]
    return cv2.imencode(".png", np.ascontiguousarray(shown))[1].tobytes()


def test_a_png_of_twelve_bits_is_mapped_by_its_range():
    values = SIXTEEN[:, :, 0] >> 4
    image = decode(png(values), None, pixels=PixelSettings(((0, 4095),)))
    np.testing.assert_array_equal(image, np.repeat((values >> 4)[:, :, None], 3, axis=2))
    assert decode(png(values), None).max() <= 15


def test_a_png_of_sixteen_bit_colour_keeps_its_values_until_they_are_mapped():
    values = SIXTEEN[:, :, :3] >> 6
    image = decode(png(values), None, pixels=PixelSettings(((0, 1023),)))
    np.testing.assert_array_equal(image, values >> 2)
    # Without a range these are the upper eight bits, as Pillow reads the file.
    with Image.open(io.BytesIO(png(SIXTEEN[:, :, :3]))) as file:
        expected = np.asarray(file.convert("RGB"))
    np.testing.assert_array_equal(decode(png(SIXTEEN[:, :, :3]), None), expected)


def test_a_transparent_png_of_sixteen_bits_is_put_on_white_as_by_pillow():
    data = png(SIXTEEN)
    with Image.open(io.BytesIO(data)) as file:
        rgba = file.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    expected = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    np.testing.assert_array_equal(decode(data, None), expected)
    image = decode(data, None, pixels=PixelSettings(bands=(1, 2, 3, 4)))
    np.testing.assert_array_equal(image, SIXTEEN >> 8)


def with_chunk(data, kind, content):
    """A PNG file with a chunk after its header."""
    import struct
    import zlib

    chunk = struct.pack(">I", len(content)) + kind + content
    chunk += struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]


def test_a_colour_that_is_transparent_by_its_value_is_white():
    values = SIXTEEN[:, :, :3].copy()
    values[2, 3] = (7, 300, 65000)
    values[2, 4] = (7, 301, 65000)  # the same in eight bits
    data = with_chunk(png(values), b"tRNS", values[2, 3].astype(">u2").tobytes())
    image = decode(data, None)
    assert image[2, 3].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(image[2, 4], values[2, 4] >> 8)


def test_grey_with_alpha_of_sixteen_bits_is_put_on_white():
    import struct
    import zlib

    pair = SIXTEEN[:, :, :2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pair)
    header = struct.pack(">IIBBBBB", 10, 12, 16, 4, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        file += struct.pack(">I", len(content)) + kind + content + crc
    grey, alpha = (pair >> 8).astype(np.float64).transpose(2, 0, 1)
    expected = 255 + (grey - 255) * alpha / 255
    image = decode(file, None)
    np.testing.assert_allclose(image[:, :, 1], expected, atol=1)
    bands = decode(file, None, pixels=PixelSettings(bands=(2, 1)))
    np.testing.assert_array_equal(bands, pair[:, :, ::-1] >> 8)


def test_a_png_of_sixteen_bits_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = with_chunk(png(SIXTEEN[:, :, :3]), b"eXIf", exif.tobytes()[6:])
    expected = np.rot90(SIXTEEN[:, :, :3] >> 8, -1)
    np.testing.assert_array_equal(decode(data, None), expected)


def test_significant_bits_are_read_from_a_png():
    assert significant_bits(with_chunk(png(SIXTEEN), b"sBIT", bytes([10, 12, 11, 16]))) == 16
    assert significant_bits(with_chunk(png(SIXTEEN[:, :, 0]), b"sBIT", b"\x0c")) == 12
    assert significant_bits(png(SIXTEEN)) == 0
    assert significant_bits(b"\xff\xd8\xff") == 0


@pytest.mark.parametrize("cut", [60, 400, 900, -20, -13])
def test_a_truncated_png_of_sixteen_bits_is_an_error(tmp_path, cut):
    path = tmp_path / "cut.png"
    path.write_bytes(png(SIXTEEN)[:cut])
    with pytest.raises(BadImage, match=r"cut\.png"):
        read_image(path)


def test_bands_are_chosen_by_their_numbers_in_any_file():
    image = RNG.integers(0, 256, (6, 5, 4)).astype(np.uint8)
    data = png(image)
    chosen = decode(data, None, pixels=PixelSettings(bands=(4, 1)))
    np.testing.assert_array_equal(chosen, image[:, :, [3, 0]])
    file = io.BytesIO()
    Image.fromarray(image[:, :, :3]).save(file, "JPEG")
    rgb = decode(file.getvalue(), None)
    bgr = decode(file.getvalue(), None, pixels=PixelSettings(bands=(3, 2, 1)))
    np.testing.assert_array_equal(bgr, rgb[:, :, ::-1])
    with pytest.raises(ValueError, match=r"it has 3 bands, and DATA.BANDS asks for number 4"):
        decode(file.getvalue(), None, pixels=PixelSettings(bands=(1, 4)))


def test_an_image_of_pillow_is_mapped_too():
    values = (SIXTEEN[:, :, 0] >> 4).astype(np.int32)
    image = from_pillow(Image.fromarray(values), PixelSettings(((0, 4095),)))
    np.testing.assert_array_equal(image[:, :, 0], values >> 4)
    with pytest.raises(ValueError, match=r"32-bit signed numbers of unknown range"):
        from_pillow(Image.fromarray(values))

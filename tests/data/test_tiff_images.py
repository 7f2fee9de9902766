import io

import numpy as np
import pytest
from PIL import Image

from virtex.data import tiff_images
from virtex.data.images import BadImage, decode, decode_raster, read_image
from virtex.data.pillow_images import UNNAMED_BAND
from virtex.data.pixel_values import PixelSettings
from virtex.errors import UserError

tifffile = pytest.importorskip("tifffile")

RNG = np.random.default_rng(0)
FIVE = RNG.integers(0, 4096, (20, 30, 5)).astype(np.uint16)
ALL = PixelSettings(((0, 4095),), bands=(1, 2, 3, 4, 5))


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"planarconfig": "contig"},
        {"planarconfig": "separate"},
        {"planarconfig": "contig", "byteorder": ">"},
        {"planarconfig": "contig", "bigtiff": True, "tile": (16, 16)},
        {"planarconfig": "contig", "compression": "lzw"},
        {"planarconfig": "contig", "compression": "zlib", "predictor": True},
    ],
    ids=str,
)
def test_all_bands_are_read_in_every_layout(options):
    first = options["planarconfig"] == "separate"
    written = FIVE.transpose(2, 0, 1) if first else FIVE
    data = tiff(np.ascontiguousarray(written), photometric="minisblack", **options)
    np.testing.assert_array_equal(decode(data, None, pixels=ALL), FIVE >> 4)
    chosen = PixelSettings(((0, 4095), (0, 2047)), bands=(5, 2))
    expected = np.dstack((FIVE[:, :, 4] >> 4, np.minimum(FIVE[:, :, 1] >> 3, 255)))
    np.testing.assert_array_equal(decode(data, None, pixels=chosen), expected)
    with pytest.raises(ValueError, match=r"it has 5 bands, and nothing says which are red"):
        decode(data, None)
    for cut in (len(data) // 2, len(data) - 40):
        with pytest.raises((ValueError, tifffile.TiffFileError)):
            decode(data[:cut], None, pixels=ALL)


def test_pages_that_are_channels_are_bands_and_others_are_not():
    stack = np.ascontiguousarray(FIVE.transpose(2, 0, 1))
    data = tiff(stack, photometric="minisblack", metadata={"axes": "CYX"})
    np.testing.assert_array_equal(decode(data, None, pixels=ALL), FIVE >> 4)
    depth = tiff(stack, photometric="minisblack", metadata={"axes": "ZYX"})
    with pytest.raises(ValueError, match=r"not declared as channels of one image"):
        decode(depth, None, pixels=ALL)
    by_rows = tiff(FIVE, photometric="minisblack")  # 20 pages of 30 x 5
    with pytest.raises(ValueError, match=r"not declared as channels.*planarconfig='contig'"):
        decode(by_rows, None, pixels=ALL)
    raster = decode_raster(depth, "stack.tif")
    np.testing.assert_array_equal(raster.values[:, :, 0], stack[0])
    assert [note for note in raster.notes if "several pages, of which the first" in note]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_band_is_alpha_only_if_the_file_declares_it(dtype):
    bits = 8 * np.dtype(dtype).itemsize
    values = RNG.integers(0, 2**bits, (9, 7, 4)).astype(dtype)
    values[0, 0, 3] = 0
    eight = (values >> (bits - 8)).astype(np.uint8)
    for extra in ("unspecified", None):
        options = {} if extra is None else {"extrasamples": [extra]}
        data = tiff(values, photometric="rgb", **options)
        if extra is None:  # the tag under another number, as if it were missing
            data = data.replace(b"\x52\x01\x03\x00\x01", b"\x51\x01\x03\x00\x01", 1)
        raster = decode_raster(data, "four.tif")
        assert raster.notes == (UNNAMED_BAND,)
        np.testing.assert_array_equal(decode(data, None), eight[:, :, :3])
    data = tiff(values, photometric="rgb", extrasamples=["unassalpha"])
    rgba = Image.fromarray(eight)
    white = Image.new("RGBA", rgba.size, "white")
    expected = np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
    assert decode(data, None)[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(decode(data, None), expected)


def test_premultiplied_colours_are_put_on_white():
    straight = RNG.integers(0, 65536, (9, 7, 3))
    alpha = RNG.integers(1, 65536, (9, 7, 1))
    data = np.dstack((straight * alpha // 65535, alpha)).astype(np.uint16)
    image = decode(tiff(data, photometric="rgb", extrasamples=["assocalpha"]), None)
    share = alpha / 65535
    expected = (straight * share + 65535 * (1 - share)) / 257
    np.testing.assert_allclose(image, expected, atol=2)


def test_floats_and_signed_values_need_a_range():
    values = RNG.normal(size=(8, 6, 3)).astype(np.float32)
    data = tiff(values, photometric="rgb")
    with pytest.raises(ValueError, match=r"floating-point numbers of unknown range"):
        decode(data, None)
    image = decode(data, None, pixels=PixelSettings(((-2, 2),)))
    expected = np.clip(np.floor(256 * (values.astype(np.float64) + 2) / 4), 0, 255)
    np.testing.assert_array_equal(image, expected)
    values[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of its 144 values are NaN.*row 4, column 3, band 2"):
        decode(tiff(values, photometric="rgb"), None, pixels=PixelSettings(((-2, 2),)))
    for dtype in (np.int16, np.uint32, np.float64):
        grey = np.arange(48).reshape(8, 6).astype(dtype)
        image = decode(tiff(grey), None, pixels=PixelSettings(((0, 63),)))
        step = 63 if dtype is np.float64 else 64
        np.testing.assert_array_equal(image[:, :, 2], np.floor(grey * 256.0 / step))


def test_a_tiff_is_turned_upright_by_its_tag():
    data = tiff(
        FIVE, photometric="minisblack", planarconfig="contig", extratags=[(274, 3, 1, 6, True)]
    )
    expected = np.rot90(FIVE >> 4, -1)
    np.testing.assert_array_equal(decode(data, None, pixels=ALL), expected)


def test_a_file_that_is_not_tiff_has_no_tags():
    for data in (b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0+\0\x08\0\0", b"\x89PNG"):
        assert tiff_images.first_tags(data) == {}


def test_a_missing_package_is_named_with_the_file(tmp_path, monkeypatch):
    path = tmp_path / "five.tif"
    path.write_bytes(tiff(FIVE, photometric="minisblack", planarconfig="contig"))
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UserError, match=r"five\.tif.*tifffile.*pretraining\[bands\]") as caught:
        read_image(path, pixels=ALL)
    assert not isinstance(caught.value, BadImage)  # which could be skipped


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_is_an_image_or_a_bad_image(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.tif"
    contig = {"photometric": "minisblack", "planarconfig": "contig"}
    seeds = [
        tiff(FIVE, **contig),
        tiff(FIVE, compression="zlib", **contig),
        tiff(FIVE, compression="lzw", tile=(16, 16), bigtiff=True, **contig),
    ]
    for trial in range(150):
        data = bytearray(seeds[trial % len(seeds)])
        for _ in range(3):
            data[rng.integers(len(data) if trial % 2 else 400)] = rng.integers(256)
        path.write_bytes(data)
        try:
            image = read_image(path, pixels=ALL)
        except BadImage as error:
            assert error.reason  # noqa: PT017 - either outcome is right
        else:
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 5)

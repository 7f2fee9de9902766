import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from virtex.data.images import BadImage, decode, read_image

simplejpeg = pytest.importorskip("simplejpeg")

COCO_MINI = os.environ.get("VIRTEX_COCO_MINI")


@pytest.fixture
def save(tmp_path):
    """A function that writes a picture as Pillow does, and gives the path."""

    def write(image, name="image.jpg", **options):
        Image.fromarray(image).save(tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_both_jpeg_decoders_give_the_same_pixels(save, photograph, subsampling, progressive):
    for odd in (photograph, photograph[:33, :17], photograph[:1, :1]):
        path = save(np.ascontiguousarray(odd), subsampling=subsampling, progressive=progressive)
        data = path.read_bytes()
        np.testing.assert_array_equal(decode(data, simplejpeg), decode(data, None))
        np.testing.assert_array_equal(read_image(path), decode(data, None))


@pytest.mark.skipif(COCO_MINI is None, reason="VIRTEX_COCO_MINI names no directory")
def test_both_jpeg_decoders_give_the_same_pixels_of_photographs():
    paths = sorted(Path(COCO_MINI, "val2017").glob("*.jpg"))
    assert paths
    for path in paths:
        data = path.read_bytes()
        np.testing.assert_array_equal(decode(data, simplejpeg), decode(data, None))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "wrong_extension.jpg"])
def test_lossless_files_give_their_pixels(save, photograph, name):
    kind = {"a.webp": "WEBP", "wrong_extension.jpg": "PNG"}.get(name)
    options = {"lossless": True} if kind == "WEBP" else {}
    path = save(photograph, name, format=kind, **options)
    image = read_image(path)
    np.testing.assert_array_equal(image, photograph)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff"])
@pytest.mark.parametrize("turned", [1, 3, 6])
def test_pictures_are_upright(save, name, turned):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :16] = 255  # the corner that moves
    exif = Image.Exif()
    exif[0x0112] = turned
    result = read_image(save(image, name, exif=exif))
    white_at = {1: (0, 0), 3: (-1, -1), 6: (0, -1)}[turned]
    assert result.shape == ((64, 32, 3) if turned == 6 else (32, 64, 3))
    corners = {corner: result[corner].min() > 200 for corner in [(0, 0), (-1, -1), (0, -1)]}
    assert [corner for corner, white in corners.items() if white] == [white_at]


@pytest.mark.parametrize("name", ["grey.jpg", "grey.png"])
def test_grey_files_get_three_equal_channels(save, photograph, name):
    result = read_image(save(photograph[:, :, 0], name))
    assert result.shape == (90, 120, 3)
    np.testing.assert_array_equal(result[:, :, 0], result[:, :, 2])


def test_sixteen_bits_are_scaled_not_clipped(save):
    values = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    for name in ("a.png", "a.tiff"):
        np.testing.assert_array_equal(read_image(save(values, name))[:, :, 1], values >> 8)


def test_pixels_of_unknown_range_are_refused(save):
    with pytest.raises(BadImage, match="32-bit"):
        read_image(save(np.ones((4, 4), np.float32), "a.tiff"))


def test_transparent_parts_are_white(save):
    image = np.zeros((4, 4, 4), np.uint8)
    image[0, 0] = (200, 0, 0, 255)
    result = read_image(save(image, "a.png"))
    assert result[0, 0].tolist() == [200, 0, 0]
    assert (result[1:] == 255).all()


def test_transparent_palettes_are_white(tmp_path, photograph):
    palette = Image.fromarray(photograph).quantize(8)
    palette.save(tmp_path / "a.gif", transparency=palette.getpixel((0, 0)))
    assert (read_image(tmp_path / "a.gif")[0, 0] == 255).all()


def test_four_inks_are_as_pillow_has_them(tmp_path, photograph):
    Image.fromarray(photograph).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), expected)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")  # Pillow's, of TIFF files
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp", "a.webp", "a.tiff"])
def test_every_truncated_file_is_an_error(save, photograph, name):
    path = save(photograph, name)
    data = path.read_bytes()
    # GIF and WebP may end in bytes that carry no pixel.
    for length in [1, 3, 20, *range(len(data) // 3, len(data) - 8, len(data) // 9)]:
        path.write_bytes(data[:length])
        with pytest.raises(BadImage, match=name):
            read_image(path)


def test_data_that_end_early_but_in_order_are_an_error(save, photograph):
    path = save(photograph)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(BadImage, match="premature end"):
        read_image(path)


@pytest.fixture(scope="module")
def damaged_path(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "damaged.jpg"


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_file_is_a_picture_or_a_bad_image(damaged_path, place, value):
    file = io.BytesIO()
    Image.radial_gradient("L").resize((40, 30)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    data[place % len(data)] = value
    damaged_path.write_bytes(bytes(data))
    try:
        image = read_image(damaged_path)
    except BadImage as error:
        assert "damaged.jpg" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert (image.ndim, image.shape[2]) == (3, 3)


@pytest.mark.parametrize("suffix", [".txt", ".eps", ".jpg"])
def test_other_files_are_an_error(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    with pytest.raises(BadImage, match="is no image"):
        read_image(path)


def test_a_missing_file_is_an_error_with_its_path(tmp_path):
    with pytest.raises(BadImage, match=r"none\.jpg: No such file") as caught:
        read_image(tmp_path / "none.jpg")
    assert caught.value.path == tmp_path / "none.jpg"


def test_an_empty_file_and_a_directory_are_errors(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(BadImage, match="is empty"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(BadImage, match="Is a directory"):
        read_image(tmp_path)


def test_a_bad_image_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(BadImage(Path("a.jpg"), "it is empty")))
    assert (error.path, error.reason) == (Path("a.jpg"), "it is empty")
    assert str(error) == "cannot read the image a.jpg: it is empty"

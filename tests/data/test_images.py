import io
import os
import pickle
import struct
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from tests.data import jpegs

from virtex.data import jpeg_parts
from virtex.data.images import BadImage, ImageLimits, decode, read_image, upright_size
from virtex.data.jpeg_parts import segments

simplejpeg = pytest.importorskip("simplejpeg")

COCO_MINI = os.environ.get("VIRTEX_COCO_MINI")


@pytest.fixture
def save(tmp_path):
    """A function that writes an image as Pillow does, and gives the path."""

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


UNUSUAL = jpegs.unusual()
DECODERS = pytest.mark.parametrize("decoder", [simplejpeg, None], ids=["simplejpeg", "pillow"])


@DECODERS
@pytest.mark.parametrize("what", UNUSUAL)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd metadata
def test_an_unusual_jpeg_is_read_as_by_pillow(what, decoder):
    with Image.open(io.BytesIO(UNUSUAL[what])) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode(UNUSUAL[what], decoder), expected)


def test_a_lossless_jpeg_gives_its_values():
    values = np.arange(600).reshape(20, 30) * 7 % 200
    np.testing.assert_array_equal(decode(jpegs.lossless(values), simplejpeg)[:, :, 1], values)


SHORTENED = {
    "plain": jpegs.jpeg(),
    "restarts": jpegs.jpeg(restart_marker_blocks=4),
    "progressive": jpegs.jpeg(progressive=True),
    "grey": jpegs.jpeg(mode="L"),
    "four inks": jpegs.jpeg(mode="CMYK"),
}


@DECODERS
@pytest.mark.parametrize("what", SHORTENED)
@pytest.mark.parametrize(
    "following", [b"", b"\xff" * 30, bytes(8000), jpegs.EOI, bytes(8000) + jpegs.EOI]
)
def test_a_truncated_jpeg_is_an_error_whatever_follows(what, following, decoder):
    data = SHORTENED[what]
    # An end marker between two scans of a progressive file makes a coarser image of it; and what
    # the last bytes of a scan stand for is often not to be seen.
    scans = [part for part in segments(data) if part.code == 0xDA]
    inside = [range(scan.parameters_end + 2, scan.end - 10, 61) for scan in scans]
    for cut in [3, 150, *chain(*inside)]:
        with pytest.raises((OSError, ValueError, SyntaxError)):
            decode(data[:cut] + following, decoder)


@DECODERS
@pytest.mark.parametrize("number", [0, 3, -1])
def test_a_jpeg_that_lost_the_data_between_two_restarts_is_an_error(number, decoder):
    data = SHORTENED["restarts"]
    markers = [place for place in range(len(data) - 1) if 0xD0 <= data[place + 1] <= 0xD7]
    markers = [place for place in markers if data[place] == 0xFF]
    start = markers[number]
    end = next((place for place in markers if place > start), len(data) - 2)
    with pytest.raises(ValueError, match=r"restart marker is missing|premature end of its data"):
        decode(data[:start] + data[end:], decoder)
    with pytest.raises(ValueError, match="premature end of its data"):
        decode(data[: start + 2] + data[end:], decoder)


def verdict(data, decoder):
    """The pixels, or the error's text."""
    try:
        return decode(data, decoder)
    except (OSError, ValueError, SyntaxError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(deadline=None)
@given(
    st.sampled_from(sorted(SHORTENED)),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3),
)
def test_a_damaged_jpeg_is_the_same_with_either_decoder(what, changes):
    data = bytearray(SHORTENED[what])
    for place, value in changes:
        data[3 + place % (len(data) - 3)] = value
    one, other = verdict(bytes(data), simplejpeg), verdict(bytes(data), None)
    assert isinstance(one, str) == isinstance(other, str), (one, other)
    if not isinstance(one, str):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "named"),
    [((4, 12), "12 bits a sample"), ((5, 0, 0), "without a height"), ((9, 2), "2 components")],
)
def test_an_unsupported_kind_of_jpeg_is_named(save, photograph, change, named):
    path = save(photograph)
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xc0")
    place, *values = change
    data[start + place : start + place + len(values)] = bytes(values)
    path.write_bytes(data)
    with pytest.raises(BadImage, match=f"a damaged or unsupported JPEG file.*{named}"):
        read_image(path)


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


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tiff", "a.avif"])
@pytest.mark.parametrize("turned", [1, 3, 6])
def test_images_are_upright(save, name, turned):
    if name == "a.avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
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


SIXTEEN_BITS = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm", "a.jp2"])
def test_sixteen_bits_are_scaled_not_clipped(save, name):
    image = read_image(save(SIXTEEN_BITS, name))
    assert image.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(image[:, :, channel], SIXTEEN_BITS >> 8)


def tiff(values, *, bits=16, white=65535, endian="<"):
    """A TIFF file of grey values (H, W), of which `white` is shown white, whole as one strip."""
    height, width = values.shape
    pixels = values.astype(f"{endian}u2").tobytes()
    if bits == 12:
        packed = [(one << 12) | other for one, other in values.reshape(-1, 2).tolist()]
        pixels = b"".join(pair.to_bytes(3, "big") for pair in packed)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(white > 0)}
    tags |= {273: 8, 277: 1, 278: height, 279: len(pixels)}
    directory = struct.pack(f"{endian}H", len(tags))
    for tag, value in tags.items():
        directory += struct.pack(f"{endian}HHII", tag, 4, 1, value)
    magic = {"<": b"II*\0", ">": b"MM\0*"}[endian]
    start = struct.pack(f"{endian}I", 8 + len(pixels))
    return magic + start + pixels + directory + bytes(4)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_sixteen_bit_tiffs_are_scaled_whatever_their_order_of_bytes(endian):
    image = decode(tiff(SIXTEEN_BITS, endian=endian), None)
    np.testing.assert_array_equal(image[:, :, 1], SIXTEEN_BITS >> 8)


def test_twelve_bits_are_scaled_by_their_own_range():
    image = decode(tiff(SIXTEEN_BITS >> 4, bits=12), None)
    np.testing.assert_array_equal(image[:, :, 1], SIXTEEN_BITS >> 8)


def test_a_tiff_whose_zero_is_white_is_inverted():
    image = decode(tiff(SIXTEEN_BITS, white=0), None)
    np.testing.assert_array_equal(image[:, :, 1], 255 - (SIXTEEN_BITS >> 8))


def test_a_transparent_value_of_sixteen_bits_is_white(save):
    transparent = int(SIXTEEN_BITS[3, 4])
    image = read_image(save(SIXTEEN_BITS, "a.png", transparency=transparent))
    expected = SIXTEEN_BITS >> 8
    expected[3, 4] = 255
    np.testing.assert_array_equal(image[:, :, 1], expected)


@pytest.mark.parametrize("white", [4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_a_graymap_is_scaled_by_its_own_white(kind, white):
    values = [0, white // 4, white // 2, white]
    header = f"{kind} 4 1 {white}\n".encode()
    plain, raw = " ".join(map(str, values)).encode(), struct.pack(">4H", *values)
    image = decode(header + (plain if kind == "P2" else raw), None)
    # A value between two of the 256 may fall to either.
    np.testing.assert_allclose(image[0, :, 0], [0, 63, 127, 255], atol=1)


def test_pixels_of_unknown_range_are_refused(save):
    for values in (np.ones((4, 4), np.float32), np.ones((4, 4), np.int32)):
        with pytest.raises(BadImage, match="32-bit"):
            read_image(save(values, "a.tiff"))


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


def test_cmyk_is_converted_as_by_pillow(tmp_path, photograph):
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
def test_a_damaged_file_is_an_image_or_a_bad_image(damaged_path, place, value):
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


def written_formats():
    """The names of the formats that Pillow can both write and, by itself, read."""
    Image.init()
    elsewhere = {"EPS", "BUFR", "GRIB", "HDF5", "WMF"}  # readers of other programs
    return sorted((Image.SAVE.keys() & Image.OPEN.keys()) - elsewhere)


def in_format(kind):
    """The bytes of a small image in a format, dark in its middle."""
    image = Image.radial_gradient("L").resize((40, 30))
    for mode in ("RGB", "L", "1", "P"):
        file = io.BytesIO()
        try:
            image.convert(mode).save(file, kind)
        except (OSError, ValueError, KeyError):
            continue
        return file.getvalue()
    raise AssertionError(f"{kind} takes no image")


# Pillow's, of a format that it gives up.
OLD_FORMATS = pytest.mark.filterwarnings("ignore:.*format is deprecated:DeprecationWarning")


@OLD_FORMATS
@pytest.mark.parametrize("kind", sorted({*written_formats()} - {"SPIDER"}))  # of 32 bits
def test_every_format_of_pillow_is_read(kind):
    image = decode(in_format(kind), None)
    assert image.dtype == np.uint8
    middle = image[image.shape[0] // 2, image.shape[1] // 2]
    assert (middle < image[0, 0]).all()


@OLD_FORMATS
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd metadata
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", written_formats())
def test_damage_in_any_format_is_an_image_or_a_bad_image(kind, tmp_path):
    data = in_format(kind)
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged"
    for trial in range(60):
        damaged = bytearray(data)
        # Headers, where most can go wrong, come first.
        within = 64 if trial % 2 else len(damaged)
        damaged[rng.integers(min(within, len(damaged)))] = rng.integers(256)
        if trial % 3 == 0:
            del damaged[rng.integers(len(damaged)) :]
        path.write_bytes(damaged)
        try:
            image = read_image(path)
        except BadImage as error:
            assert error.reason  # noqa: PT017 - either outcome is right
        else:
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"


@pytest.mark.parametrize("suffix", [".txt", ".eps", ".jpg"])
def test_other_files_are_an_error(tmp_path, suffix):
    path = tmp_path / f"notes{suffix}"
    path.write_bytes(POSTSCRIPT)
    with pytest.raises(BadImage, match="is not an image"):
        read_image(path)


def test_postscript_inside_another_file_is_not_run():
    """Pillow would open it, and run Ghostscript, as the image that an IPTC file holds."""
    fields = {(3, 20): b"\0\x0a", (3, 30): b"\0\x0a", (3, 60): b"\1\0", (3, 120): b"\5"}
    fields[8, 10] = POSTSCRIPT
    data = b"".join(
        bytes((0x1C, *name)) + struct.pack(">H", len(value)) + value
        for name, value in fields.items()
    )
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "IPTC"
    with pytest.raises(Image.UnidentifiedImageError):
        decode(data, None)


@pytest.mark.cold
def test_readers_are_imported_when_the_first_image_is_read():
    told = "import sys, virtex.data.images; print('PIL.PsdImagePlugin' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True)
    assert result.stdout == "False\n"


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


def test_a_bad_image_survives_pickling():
    error = pickle.loads(pickle.dumps(BadImage(Path("a.jpg"), "it is empty")))
    assert (error.path, error.reason) == (Path("a.jpg"), "it is empty")
    assert str(error) == "cannot read the image a.jpg: it is empty"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff"])
def test_an_image_of_more_pixels_than_allowed_is_not_unpacked(save, photograph, name):
    path = save(photograph, name)
    assert read_image(path, ImageLimits(pixels=90 * 120)).shape == (90, 120, 3)
    with pytest.raises(BadImage, match=r"120 x 90 pixels are more than DATA\.MAX_PIXELS, 10799"):
        read_image(path, ImageLimits(pixels=90 * 120 - 1))


def test_a_file_of_more_bytes_than_allowed_is_not_read(save, photograph):
    path = save(photograph, "a.png")
    size = path.stat().st_size
    read_image(path, ImageLimits(file_bytes=size))
    with pytest.raises(BadImage, match=r"larger than DATA\.MAX_IMAGE_MB"):
        read_image(path, ImageLimits(file_bytes=size - 1))


def test_a_file_without_end_is_a_bad_image():
    with pytest.raises(BadImage, match=r"larger than DATA\.MAX_IMAGE_MB, 1 MB"):
        read_image(Path("/dev/zero"), ImageLimits(file_bytes=1 << 20))


def large_png(width, height):
    """A PNG file of that size, all black: 1 bit a pixel, and empty rows take next to nothing."""
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


def test_more_pixels_than_pillow_allows_are_read_on_request(tmp_path):
    code = """
import sys, warnings
from pathlib import Path
from virtex.data.images import BadImage, ImageLimits, read_image
warnings.filterwarnings("ignore")
path = Path(sys.argv[1])
try:
    read_image(path)
except BadImage as error:
    print(error.reason)
print(read_image(path, ImageLimits(pixels=180_000_000)).shape)
"""
    path = tmp_path / "large.png"
    path.write_bytes(large_png(18_000, 10_000))
    ended = subprocess.run(
        [sys.executable, "-c", code, path], check=True, capture_output=True, text=True
    )
    assert ended.stdout.splitlines() == [
        "its 180000000 pixels are more than DATA.MAX_PIXELS, 178956970",
        "(10000, 18000, 3)",
    ]


def test_a_jpeg_of_very_many_scans_is_refused(save, photograph):
    file = io.BytesIO()
    Image.fromarray(photograph).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    path = save(photograph)
    path.write_bytes(data[:-2] + data[last:-2] * 100 + data[-2:])
    with pytest.raises(BadImage, match="more than 100 scans"):
        read_image(path)


def test_scans_that_all_give_something_may_do_the_work_of_a_hundred_of_the_largest_image():
    data = jpegs.scans_of_one_coefficient(110, side=80)
    assert decode(data, simplejpeg, ImageLimits(pixels=7040)).shape == (80, 80, 3)
    with pytest.raises(ValueError, match="more than 100 scans"):
        decode(data, simplejpeg, ImageLimits(pixels=7039))


def test_more_segments_than_a_program_writes_are_refused_quickly():
    data = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5_000_000 + jpegs.SOS * 200
    before = time.perf_counter()
    with pytest.raises(ValueError, match="more than 20000 segments"):
        decode(data, simplejpeg)
    assert time.perf_counter() - before < 2


def test_very_many_segments_are_skipped_quickly():
    data = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 10_000_000
    before = time.perf_counter()
    assert jpeg_parts.exif(data) == b""
    assert time.perf_counter() - before < 0.5  # walking through all of them takes seconds


@pytest.mark.parametrize("kind", ["jpg", "png", "tiff"])
@pytest.mark.parametrize("turned", range(1, 9))
def test_the_size_from_the_header_is_that_of_the_image(tmp_path, kind, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    path = tmp_path / f"one.{kind}"
    Image.new("RGB", (6, 4)).save(path, exif=exif)
    assert upright_size(path) == read_image(path).shape[:2]

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from virtex.data import jpeg_parts
from virtex.data.exif import orientation, upright


def jpeg_with(exif):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_orientation_is_read_from_a_jpeg_file(turned, endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F] = "a camera"
    exif[0x0112] = turned
    assert orientation(jpeg_parts.exif(jpeg_with(exif))) == turned


@pytest.mark.parametrize("turned", range(1, 9))
def test_upright_equals_pillow(turned):
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    stored = Image.fromarray(image)
    stored.getexif()[0x0112] = turned
    result = upright(image, turned)
    np.testing.assert_array_equal(result, np.asarray(ImageOps.exif_transpose(stored)))
    assert result.flags.c_contiguous


def test_a_file_without_exif_is_upright():
    assert jpeg_parts.exif(jpeg_with(b"")) == b""
    assert orientation(b"") == 1


@given(
    st.binary(max_size=60), st.sampled_from([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0\x08\0\0\0"])
)
def test_broken_exif_is_no_error(data, start):
    assert 1 <= orientation(start + data) <= 8


@given(st.binary(max_size=60))
def test_broken_segments_are_no_error(data):
    assert isinstance(jpeg_parts.exif(b"\xff\xd8\xff\xe1" + data), bytes)

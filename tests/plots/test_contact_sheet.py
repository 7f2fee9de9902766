import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.plots.contact_sheet import TILE, contact_sheet


def images(count, shape=(20, 30)):
    return [np.full((*shape, 3), 40 + 10 * i, dtype=np.uint8) for i in range(count)]


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 9), columns=st.integers(1, 5))
def test_every_image_has_a_place_and_no_other_is_drawn(count, columns):
    sheet = contact_sheet(images(count), [""] * count, columns)
    rows = -(-count // columns)
    assert sheet.dtype == np.uint8
    cell_height, cell_width = (sheet.shape[0] - 8) // rows, (sheet.shape[1] - 8) // columns
    assert cell_height > TILE
    assert cell_width > TILE
    for place in range(rows * columns):
        top, left = place // columns * cell_height + 8, place % columns * cell_width + 8
        tile = sheet[top : top + TILE, left : left + TILE]
        value = 40 + 10 * place if place < count else 255
        assert (tile == value).all()


def test_a_caption_stands_below_its_own_image():
    plain, written = (
        contact_sheet(images(3), ["", caption, ""], columns=3) for caption in ("", "a cat")
    )
    rows, columns = (plain != written).any(axis=2).nonzero()
    assert rows.min() >= 8 + TILE
    width = (plain.shape[1] - 8) // 3
    assert width < columns.min() <= columns.max() < 2 * width + 8


def test_a_long_caption_is_cut():
    words = [f"word{i:03}" for i in range(200)]
    sheets = [contact_sheet(images(1), [" ".join(words[:n])]) for n in (5, 100, 200)]
    assert sheets[0].shape == sheets[1].shape
    assert not np.array_equal(sheets[0], sheets[1])
    assert np.array_equal(sheets[1], sheets[2])


@pytest.mark.parametrize("shape", [(5, 200), (300, 10), (TILE, TILE)])
def test_any_shape_of_image_fills_its_tile(shape):
    sheet = contact_sheet(images(1, shape), [""], columns=1)
    assert (sheet[8 : 8 + TILE, 8 : 8 + TILE] == 40).all()


def test_images_and_captions_must_pair():
    with pytest.raises(ValueError, match="zip"):
        contact_sheet(images(2), ["one"])

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.plots.attention_panels import HEAD_PANEL, PANEL, attention_panels, overlay

GREY = np.full((60, 60, 3), 128, dtype=np.uint8)


def maps_of(words, heads=2, shape=(7, 7), seed=0):
    drawn = np.random.default_rng(seed).random((words, heads, *shape))
    return drawn / drawn.sum(axis=(2, 3), keepdims=True)


def words_of(count):
    return [f"word{i}" for i in range(count)]


def panels(sheet, side):
    """Corners (row, column) of the squares of `side` pixels that hold no white."""
    dark = np.pad((sheet != 255).any(axis=2), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = dark[side:, side:] - dark[:-side, side:] - dark[side:, :-side] + dark[:-side, :-side]
    return [(int(row), int(column)) for row, column in np.argwhere(sums == side * side)]


@settings(deadline=None, max_examples=12)
@given(count=st.integers(0, 9), columns=st.integers(1, 5))
def test_the_image_comes_first_and_every_word_has_a_panel(count, columns):
    sheet = attention_panels(GREY, words_of(count), maps_of(count), columns=columns)
    assert (sheet.ndim, sheet.shape[2], sheet.dtype) == (3, 3, np.uint8)
    corners = panels(sheet, PANEL)
    assert len(corners) == count + 1
    rows = sorted({row for row, _ in corners})
    assert len(rows) == -(-(count + 1) // columns)
    assert [sum(row == each for row, _ in corners) for each in rows[:-1]] == [columns] * (
        len(rows) - 1
    )
    row, column = corners[0]
    assert (sheet[row : row + PANEL, column : column + PANEL] == 128).all()


def test_a_panel_is_the_image_under_the_mean_of_the_heads():
    image = np.random.default_rng(0).integers(0, 256, (PANEL, PANEL, 3), dtype=np.uint8)
    maps = maps_of(2, heads=3)
    sheet = attention_panels(image, words_of(2), maps)
    places = panels(sheet, PANEL)
    shown = [sheet[r : r + PANEL, c : c + PANEL] for r, c in places]
    expected = [image, *(overlay(image, grid) for grid in maps.mean(axis=1))]
    for got, wanted in zip(shown, expected, strict=True):
        assert np.array_equal(got, wanted)


def test_heads_have_a_row_each_below_their_mean():
    image = np.random.default_rng(0).integers(0, 255, (HEAD_PANEL, HEAD_PANEL, 3), dtype=np.uint8)
    maps = maps_of(4, heads=3)
    sheet = attention_panels(image, words_of(4), maps, heads=True)
    places = panels(sheet, HEAD_PANEL)
    shown = [sheet[r : r + HEAD_PANEL, c : c + HEAD_PANEL] for r, c in places]
    grids = [*maps.mean(axis=1), *maps.swapaxes(0, 1).reshape(12, 7, 7)]
    expected = [image, *(overlay(image, grid) for grid in grids)]
    for got, wanted in zip(shown, expected, strict=True):
        assert np.array_equal(got, wanted)
    rows = sorted({row for row, _ in places})
    assert len(rows) == 4
    of_word = [[column for row, column in places if row == each] for each in rows]
    assert of_word[0][1:] == of_word[1] == of_word[2] == of_word[3]


@pytest.mark.parametrize("shape", [(30, 60), (300, 100), (1000, 10), (1, 1)])
def test_the_images_proportions_are_kept(shape):
    red = np.zeros((*shape, 3), dtype=np.uint8)
    red[..., 0] = 200  # as no letter and no panel is
    sheet = attention_panels(red, words_of(1), maps_of(1, shape=(5, 3)))
    rows, columns = np.nonzero((sheet == (200, 0, 0)).all(axis=2))
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert max(height, width) == PANEL
    longer, shorter = max(shape), min(shape)
    assert min(height, width) == round(PANEL * shorter / longer)
    assert (height > width) == (shape[0] > shape[1])


@pytest.mark.parametrize("value", [0.0, 1e-30, 1 / 49, 1.0])
def test_a_uniform_map_is_uniform(value):
    shown = overlay(GREY, np.full((7, 7), value))
    assert (shown == shown[0, 0]).all()
    if value == 0.0:
        assert len(set(shown[0, 0].tolist())) == 1  # grey: no colour where nothing is attended
    else:
        assert np.array_equal(shown, overlay(GREY, np.full((7, 7), 0.5)))


def test_a_map_is_scaled_by_its_own_maximum():
    grid = maps_of(1)[0, 0]
    assert np.array_equal(overlay(GREY, grid), overlay(GREY, 0.25 * grid))


@given(row=st.integers(0, 3), column=st.integers(0, 5))
def test_the_brightest_place_is_where_the_map_has_it(row, column):
    grid = np.zeros((4, 6))
    grid[row, column] = 0.7
    shown = overlay(np.full((80, 120, 3), 128, dtype=np.uint8), grid).astype(int).sum(axis=2)
    y, x = np.unravel_index(shown.argmax(), shown.shape)
    assert (y // 20, x // 20) == (row, column)
    # Two places away, only the image is left.
    for other_row, other_column in np.argwhere(np.ones((4, 6))):
        if max(abs(other_row - row), abs(other_column - column)) > 2:
            tile = shown[20 * other_row :, 20 * other_column :][:20, :20]
            assert (tile == shown.min()).all()


def test_brightness_rises_with_the_map():
    ramp = np.tile(np.linspace(0, 1, 8), (8, 1))
    shown = overlay(np.full((80, 80, 3), 60, dtype=np.uint8), ramp).astype(int).sum(axis=2)
    # Between the middles of the first and the last place, where the curve does not swing.
    assert (np.diff(shown[40, 10:70]) >= -2).all()  # three channels are rounded
    assert shown[40, 70] - shown[40, 10] > 200


def test_words_and_maps_must_pair():
    with pytest.raises(ValueError, match="zip"):
        attention_panels(GREY, words_of(3), maps_of(2))


def test_long_captions_and_foreign_letters_are_drawn():
    words = ["słoń", "日本", "w" * 200, *words_of(20)]
    sheet = attention_panels(GREY, words, maps_of(23), columns=2)
    assert len(panels(sheet, PANEL)) == 24

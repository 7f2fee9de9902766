import pytest

from virtex.synthetic.reading import (
    is_true,
    is_true_in_pairs,
    stated_colors,
    stated_pairs,
    stated_shapes,
)

IMAGE = [("red", "circle"), ("blue", "star")]


def test_what_a_caption_states() -> None:
    caption = "Two red circles, and a striped blue cross on a white background."
    assert stated_shapes(caption) == ["circle", "cross"]
    assert stated_colors(caption) == ["red", "blue"]
    assert stated_pairs(caption) == [("red", "circle"), ("blue", "cross")]


def test_nothing_stated() -> None:
    for caption in ("", "background", "there is a picture of the other side"):
        assert stated_shapes(caption) == stated_colors(caption) == stated_pairs(caption) == []


@pytest.mark.parametrize(
    ("caption", "words", "pairs"),
    [
        ("a red circle", True, True),
        ("a red circle to the left of a blue star", True, True),
        ("two red circles on a green background", True, True),
        ("a blue circle", True, False),
        ("a red blue star", True, False),
        ("a circle and a blue star", True, False),
        ("a green circle", False, False),
        ("a red square", False, False),
        ("a red circle and a red square", False, False),
        ("a circle", False, False),
        ("red and blue", False, False),
        ("", False, False),
    ],
)
def test_judgement(caption: str, words: bool, pairs: bool) -> None:
    assert is_true(caption, IMAGE) == words
    assert is_true_in_pairs(caption, iter(IMAGE)) == pairs

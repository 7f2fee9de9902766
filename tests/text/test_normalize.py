import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.text.normalize import normalize_caption, swap_left_right


@given(st.text())
def test_normal_form_is_stable(text):
    once = normalize_caption(text)
    assert normalize_caption(once) == once


@given(st.text())
def test_normal_form_has_no_combining_mark(text):
    assert not any(unicodedata.combining(character) for character in normalize_caption(text))


@given(st.text(st.characters(max_codepoint=0x24F)))
def test_latin_text_is_as_lower_casing_first_gives_it(text):
    published = unicodedata.normalize("NFKD", text.lower())
    published = "".join(c for c in published if not unicodedata.combining(c))
    assert normalize_caption(text) == published


@pytest.mark.parametrize(
    ("text", "normal"),
    [("Café", "cafe"), ("½ ﬁsh", "1⁄2 fish"), ("ᴬℌ", "ah"), ("İstanbul", "istanbul"), ("", "")],
)
def test_normal_form_by_hand(text, normal):
    assert normalize_caption(text) == normal


@given(st.lists(st.sampled_from(["left", "right", "bright", " ", "-", ".", "a"])).map("".join))
def test_swapping_twice_is_nothing(text):
    assert swap_left_right(swap_left_right(text)) == text


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("a bright dog left of a cat", "a bright dog right of a cat"),
        ("left, right; left-handed.", "right, left; right-handed."),
        ("leftovers copyright", "leftovers copyright"),
    ],
)
def test_only_whole_words_are_swapped(text, swapped):
    assert swap_left_right(text) == swapped

import itertools
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import ImageFont

from virtex.plots.fonts import choose_font
from virtex.plots.lettering import fit, legible, wrap

OWN = ImageFont.load_default(size=12)
words = st.text("abc é日", max_size=60)


@given(st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
def test_plain_english_is_drawn_in_pillows_font(text):
    assert choose_font(text, 12).getname() == OWN.getname()
    assert legible(text, OWN) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Café, à l’été…", "Cafe, a l’ete…"),
        ("e\N{COMBINING ACUTE ACCENT}", "e"),
        ("q\N{COMBINING TILDE}", "q"),
        ("ſłoń", "s?on"),
        ("собака", "??????"),
        ("日本", "??"),
        ("a b", "a b"),
    ],
)
def test_letters_that_a_font_lacks_become_similar_ones_or_question_marks(text, expected):
    """Pillow's own font has no accents."""
    assert legible(text, OWN) == expected


@pytest.mark.parametrize("text", ["café słoń", "собака", "日本", "caffè 日本"])
def test_the_chosen_font_loses_no_more_letters_than_pillows(text):
    """Whatever fonts the machine has."""
    composed = unicodedata.normalize("NFC", text)

    def kept(font):
        return sum(a == b for a, b in zip(legible(text, font), composed, strict=True))

    chosen = choose_font(text, 12)
    assert kept(chosen) >= kept(OWN)
    assert chosen.size == 12


@given(text=words, width=st.integers(12, 200))
def test_what_fits_is_kept_and_what_does_not_is_cut(text, width):
    got = fit(text, OWN, width)
    assert OWN.getlength(got) <= width
    whole = legible(text, OWN)
    assert got == whole or (got.endswith("…") and whole.startswith(got[:-1]))
    assert (got == whole) == (OWN.getlength(whole) <= width)


@given(text=words, width=st.integers(12, 200))
def test_lines_fit_and_lose_nothing(text, width):
    lines = wrap(text, OWN, width)
    assert all(OWN.getlength(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == legible(text, OWN).replace(" ", "")


@given(text=words, width=st.integers(60, 200))
def test_words_are_whole_where_they_fit_and_lines_are_full(text, width):
    split = legible(text, OWN).split()
    assume(all(OWN.getlength(word) <= width for word in split))
    lines = wrap(text, OWN, width)
    assert [word for line in lines for word in line.split()] == split
    for line, following in itertools.pairwise(lines):
        assert OWN.getlength(f"{line} {following.split()[0]}") > width

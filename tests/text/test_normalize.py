import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.text.normalize import NORMALIZATIONS, find_changes, normalize_caption


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


# A letter of each kind that the published form damages, and what three others keep of it.
LANGUAGES = {
    "Japanese": "赤いボールとパン",
    "Hindi": "रास्ते पर स्कूल की बस",
    "Thai": "น้ำไม่มี",
    "Vietnamese": "con má và cái mạ",
    "Korean": "빨간 공이 있다",
    "German": "groß, möchte, nicht mochte",
    "Russian": "йогурт и ёж",
}


@pytest.mark.parametrize("text", LANGUAGES.values(), ids=LANGUAGES)
@pytest.mark.parametrize("normalization", ["nfkc_lower", "nfc", "none"])
def test_other_forms_keep_letters_of_all_scripts(text, normalization):
    assert normalize_caption(text, normalization) == text
    if normalization != "none":
        parts = unicodedata.normalize("NFD", text)
        assert normalize_caption(parts, normalization) == text


@given(text=st.text(), normalization=st.sampled_from(NORMALIZATIONS))
def test_normalising_twice_is_normalising_once(text, normalization):
    once = normalize_caption(text, normalization)
    assert normalize_caption(once, normalization) == once


@pytest.mark.parametrize(
    ("normalization", "normal"),
    [("nfkc_lower", "ein 1 b straße"), ("nfc", "Ein ① B Straße"), ("none", "Ein ① B Straße")],
)
def test_case_and_white_space_by_hand(normalization, normal):
    assert normalize_caption("  Ein\t①\u3000\nB Straße ", normalization) == normal


@given(text=st.text(), normalization=st.sampled_from(NORMALIZATIONS))
def test_changes_are_those_of_single_characters(text, normalization):
    composed = [c for c in unicodedata.normalize("NFC", text) if not c.isspace()]
    changed = [c for c in composed if normalize_caption(c, normalization) not in (c, c.lower())]
    found = find_changes([text], normalization)
    assert (found.characters, found.changed) == (len(composed), len(changed))
    assert found.letters == sum(unicodedata.category(c)[0] in "LM" for c in changed)


def test_changes_are_counted_and_shown():
    found = find_changes(["Ein Café", "Café à 빨 ไม่"], "published")
    assert (found.characters, found.changed, found.letters) == (16, 5, 5)
    assert found.examples == ("é → e", "à → a", "빨 → ᄈ ᅡ ᆯ", "◌่ → nothing")
    assert find_changes(["Ein Café"], "nfkc_lower").changed == 0

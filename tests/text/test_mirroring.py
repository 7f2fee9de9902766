import pickle
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtex.config.data import Data
from virtex.config.specs import LANGUAGES
from virtex.errors import UserError
from virtex.text.mirror_words import Language, language_pairs
from virtex.text.mirroring import ENGLISH, MirrorWords
from virtex.text.normalize import NORMALIZATIONS, normalize_caption

PARTS = ["left", "right", "bright", "leftovers", " ", "-", ".", "_", "1", "a", "é", "日"]


def mirrored(language, text, normalization="nfc"):
    words = MirrorWords.normalized(language_pairs(language), normalization)
    return words.swap(normalize_caption(text, normalization))


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_english_is_as_published(text):
    swap = {"left": "right", "right": "left"}
    published = re.sub(r"\b(?:left|right)\b", lambda word: swap[word[0]], text)
    assert ENGLISH.swap(text) == published
    assert ENGLISH.swap(published) == text


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("a bright dog left of a cat", "a bright dog right of a cat"),
        ("left, right; left-handed.", "right, left; right-handed."),
        ("leftovers copyright", "leftovers copyright"),
    ],
)
def test_only_whole_words_are_swapped(text, swapped):
    assert ENGLISH.swap(text) == swapped


@pytest.mark.parametrize(
    ("language", "text", "swapped"),
    [
        ("german", "Links ein Rechteck, RECHTS", "Rechts ein Rechteck, LINKS"),
        ("german", "am linken Rand aufrecht", "am rechten Rand aufrecht"),
        ("german", "Linkshänder mit recht großer", "Rechtshänder mit recht großer"),
        ("french", "à gauche, la main droite", "à droite, la main gauche"),
        ("french", "Le bras droit", "Le bras gauche"),
        ("french", "Le bras  gauche", "Le bras droit"),
        ("french", "coin supérieur gauche", "coin supérieur droit"),
        ("french", "les yeux gauches", "les yeux droits"),
        ("french", "il va tout droit, assise droite", "il va tout droit, assise droite"),
        ("french", "gauchère, maladroite", "droitière, maladroite"),
        ("spanish", "mano izquierda, pie derecho", "mano derecha, pie izquierdo"),
        ("spanish", "sigue todo derecho", "sigue todo derecho"),
        ("italian", "a Sinistra, occhi destri, dx", "a Destra, occhi sinistri, sx"),
        ("portuguese", "à esquerda, olho direito", "à direita, olho esquerdo"),
    ],
)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_languages_by_hand(language, text, swapped, normalization):
    wanted = normalize_caption(" ".join(swapped.split()), normalization)
    assert " ".join(mirrored(language, text, normalization).split()) == wanted
    assert mirrored(language, swapped, normalization) == " ".join(
        normalize_caption(text, normalization).split()
    )


@pytest.mark.parametrize("language", get_args(Language))
def test_every_pair_of_a_language_leads_to_its_other_side_and_back(language):
    pairs = language_pairs(language)
    words = MirrorWords(pairs)
    firsts = set()
    for one, other in pairs:
        assert one == one.lower()
        assert words.swap(other) == (one if other not in firsts else words.swap(other))
        if one not in firsts:
            assert words.swap(one) == other
        firsts |= {one, other}


def test_no_language_has_a_word_of_another_but_of_its_relatives():
    romance = {"spanish", "italian", "portuguese"}
    words = {
        language: {side for pair in language_pairs(language) for side in pair}
        for language in LANGUAGES
    }
    for one in LANGUAGES:
        for other in LANGUAGES:
            if one < other and not {one, other} <= romance:
                assert not words[one] & words[other]


def test_the_settings_name_the_languages_that_exist():
    assert get_args(Language) == LANGUAGES
    assert Data().mirror_words == ("english",)


@pytest.mark.parametrize(
    ("pairs", "text", "swapped"),
    [
        ([("左", "右")], "左側の犬", "右側の犬"),
        ([("ซ้าย", "ขวา"), ("ขวาน", "ขวาน")], "มือซ้ายถือขวาน", "มือขวาถือขวาน"),
        ([("बाएं", "दाएं"), ("बाए", "दाए")], "दाएं और बाए", "बाएं और दाए"),
        ([("слева", "справа")], "Слева дом", "Справа дом"),
        ([("links", "backbord"), ("links", "rechts")], "links rechts", "backbord links"),
        ([("to the  west", "eastwards")], "To  the west", "Eastwards"),
        ([], "left and right", "left and right"),
    ],
)
def test_own_pairs_of_any_script(pairs, text, swapped):
    words = MirrorWords.normalized(pairs, "nfc")
    assert words.swap(text) == swapped
    assert pickle.loads(pickle.dumps(words)).swap(text) == swapped


def test_without_normalisation_both_forms_are_found():
    words = MirrorWords.normalized([("gauchère", "droitière")], "none")
    assert words.swap("gauche\u0300re") == "droitie\u0300re"
    assert words.swap("gauch\u00e8re") == "droiti\u00e8re"


def test_a_pair_of_which_nothing_is_left_is_an_error():
    with pytest.raises(UserError, match="published leaves nothing of a side of"):
        MirrorWords.normalized([("a", "\u0301")], "published")

"""The language of captions, and whether they are medical."""

import pytest
from tests.doctor.data_sets import TEXTS

from virtex.doctor.languages import UNKNOWN, has_case, is_medical, main_language

CAPTIONS = {
    "English": "a dog runs on the grass in front of two people",
    "German": "Ein Hund läuft auf der Wiese und zwei Kinder spielen im Garten",
    "French": "Un chien court dans le jardin avec deux enfants sur une pelouse",
    "Spanish": "Un perro corre por el jardín con dos niños en la hierba",
    "Italian": "Un cane corre nel giardino con due bambini e una palla",
    "Portuguese": "Um cachorro corre na grama com duas crianças e uma bola",
    "Dutch": "Een hond rent op het gras met twee kinderen van de buren",
    "Polish": "Pies biegnie na trawie i dwa koty siedzą przy nim w cieniu",
    "Japanese": TEXTS["japanese"][2],
    "Korean": TEXTS["korean"][2],
    "Chinese": TEXTS["chinese"][2],
    "a language in Greek letters": TEXTS["greek"][2],
}


@pytest.mark.parametrize(("language", "caption"), CAPTIONS.items())
def test_languages_are_recognised(language, caption):
    assert main_language([caption] * 3) == language


def test_words_of_no_known_language_are_not_taken_for_one():
    assert main_language(["xyzzy plugh frotz"]) == UNKNOWN
    assert main_language(["1234"]) == UNKNOWN


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("Kein Pleuraerguss, Herzgröße normal.", True),
        ("No pleural effusion; lungs are clear.", True),
        ("両肺に異常なし", True),
        ("Die Abteilung in der Stellung einer Sammlung", False),
        ("a red car on a road", False),
    ],
)
def test_medical_reports_are_recognised(caption, expected):
    assert is_medical([caption]) is expected
    assert not is_medical([caption, *["a dog runs"] * 9])


def test_scripts_with_capitals():
    assert has_case(["Ein Hund"])
    assert has_case(["Красная машина"])
    assert not has_case([TEXTS["japanese"][2]])
    assert not has_case([TEXTS["korean"][2]])

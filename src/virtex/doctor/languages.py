"""Guesses of the script, the language and the subject of captions."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

_WORD = re.compile(r"\w+")
_KANA = ("HIRAGANA", "KATAKANA")
_FUNCTION_WORDS = {
    "English": "the of and with is are there on this that its from two",
    "German": "der das und ist mit ein eine einem einer auf im nicht von sind zwei kein keine ohne",
    "French": "le les des une est avec dans sur du et aux sont deux",
    "Spanish": "el los las una con del muy hay sobre está dos",
    "Italian": "il gli di che un una con della nel sono due",
    "Portuguese": "os um uma com não do da em são dois está",
    "Dutch": "het een van de en met op zijn niet twee",
    "Swedish": "och en ett på med är som av inte två",
    "Danish or Norwegian": "og en et på med er som af av ikke to",
    "Polish": "na jest się nie bez dwa przy oraz",
    "Czech": "na je se bez dva není",
    "Hungarian": "az egy és van nem két",
    "Romanian": "și în cu din este fără doi",
    "Turkish": "ve bir bu ile için iki değil",
    "Indonesian": "yang di dan dengan ini sebuah tidak dua",
    "Vietnamese": "một và của trong có không với người",
}
"""Frequent words by language; those of several languages count for all of them."""
_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
_LEAST_WORDS = 2
_LEAST_SHARE = 0.06
"""The least share of frequent words in all captions of a language."""
_OF_SCRIPTS = {"Hangul": "Korean", "Han": "Chinese"}
UNKNOWN = "a language that is not recognised"

_MEDICAL = """
thora pneumo pulmon poumon lunge lung radiogra röntgen x-ray xray patient erguss ergüsse effusion
épanchement derrame versamento lesion läsion lésion tumor tumour fraktur fractur karzinom carcinom
herzgröße herzschatten cardio kardio mediastin befund ventric ventrik pleura biops sonogra mammogra
leber hepat infiltrat verschattung opacit лёгк легк груд
"""
_MEDICAL_UNSPACED = ("肺", "胸部", "病変", "骨折", "肿瘤", "病灶", "胸腔", "폐", "흉부")
_MANY = 0.2
_SAMPLE = 2000


def script(text: str) -> str | None:
    """The script of most letters, such as `Latin`; None without letters.

    Han, hiragana and katakana together are `Japanese`.
    """
    counts: Counter[str] = Counter()
    for character in text:
        if unicodedata.category(character)[0] == "L":
            counts[unicodedata.name(character, "UNKNOWN").split()[0]] += 1
    if not counts:
        return None
    if any(counts[kana] for kana in _KANA):
        return "Japanese"
    name = counts.most_common(1)[0][0]
    return "Han" if name == "CJK" else name.capitalize()


def language(text: str) -> str | None:
    """The language whose frequent words a caption in Latin script has most of.

    None if these are fewer than two, or as many as of another language.
    """
    words = [word.lower() for word in _WORD.findall(text)]
    counts = Counter({name: sum(word in known for word in words) for name, known in _WORDS.items()})
    (best, most), (_, second) = counts.most_common(2)
    return best if most >= _LEAST_WORDS and most > second else None


def main_language(captions: Sequence[str]) -> str:
    """The name of the language of most captions; `UNKNOWN` if it is not recognised."""
    some = captions[:: -(-len(captions) // _SAMPLE)]
    scripts = Counter(name for text in some if (name := script(text)) is not None)
    if not scripts:
        return UNKNOWN
    ((most, _),) = scripts.most_common(1)
    if most == "Japanese" or most in _OF_SCRIPTS:
        return _OF_SCRIPTS.get(most, most)
    if most != "Latin":
        return f"a language in {most} letters"
    words = Counter(word for text in some for word in _WORD.findall(text.lower()))
    counts = {name: sum(words[word] for word in known) for name, known in _WORDS.items()}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] >= _LEAST_SHARE * words.total() else UNKNOWN


def is_medical(captions: Sequence[str]) -> bool:
    """Whether many captions have words of radiology."""
    stems = tuple(_MEDICAL.split())
    found = sum(
        any(word.startswith(stems) for word in text.lower().split())
        or any(word in text for word in _MEDICAL_UNSPACED)
        for text in captions
    )
    return found >= _MANY * len(captions)


def has_case(captions: Iterable[str]) -> bool:
    """Whether most letters are of a script with capitals."""
    letters = Counter(c for text in captions for c in text if c.isalpha())
    cased = sum(number for c, number in letters.items() if c.lower() != c or c.upper() != c)
    return 2 * cased > letters.total()

"""The language of captions, by the script of their letters and by their most frequent words."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

_WORDS = {
    "english": "the a an of and is in with on to are no at this for two",
    "german": "der die das den dem des und ist mit ein eine einer im auf am keine kein nicht ohne",
    "french": "le la les des une un et est dans avec sur du pas au aux deux sans",
    "spanish": "el la los las un una y en con que del por se está no sin dos",
    "italian": "il la lo gli un una e con che per nel della del sono di non due senza",
    "portuguese": "o a os as um uma e com em que do da no na não são está sem dois",
    "Dutch": "de het een en van met op is in geen niet zonder twee aan",
    "Swedish": "och en ett på med är som i av inte utan två",
    "Danish or Norwegian": "og en et på med er i af av ikke uden uten to",
    "Polish": "i w na z jest się do nie bez dwa ze przy",
    "Czech": "v na je se s ze bez dva u není pes",
    "Hungarian": "a az egy és van nem két nélkül",
    "Romanian": "și în cu de la un o este fără doi pe",
    "Turkish": "ve bir bu ile için iki değil olan",
    "Indonesian": "yang di dan dengan ini sebuah tidak dua",
    "Vietnamese": "một và của trong có không với người",
}
_LEAST = 0.06
"""The least share of all words that are frequent words of their language."""
_SCRIPTS = {
    "HIRAGANA": "Japanese",
    "KATAKANA": "Japanese",
    "HANGUL": "Korean",
    "CJK": "Chinese",
    "CYRILLIC": "a language in Cyrillic letters",
    "GREEK": "Greek",
    "ARABIC": "a language in Arabic letters",
    "HEBREW": "Hebrew",
    "THAI": "Thai",
    "DEVANAGARI": "a language in Devanagari",
}
_MOST_LETTERS = 200_000
UNKNOWN = "a language that is not recognised"
_MEDICAL = """
thora pneumo pulmon poumon lunge lung radiogra röntgen x-ray xray patient erguss ergüsse effusion
épanchement derrame versamento lesion läsion lésion tumor tumour fraktur fractur karzinom carcinom
herzgröße herzschatten cardio kardio mediastin befund ventric ventrik pleura biops sonogra mammogra
leber hepat infiltrat verschattung opacit лёгк легк груд
"""
_MEDICAL_UNSPACED = ("肺", "胸部", "病変", "骨折", "肿瘤", "病灶", "胸腔", "폐", "흉부")
_MANY = 0.2


def find_language(captions: Sequence[str]) -> str:
    """The name of the captions' language; `UNKNOWN` if it is not recognised."""
    script = _script("".join(captions)[:_MOST_LETTERS])
    if script != "LATIN":
        return _SCRIPTS.get(script, UNKNOWN)
    words = Counter(word for caption in captions for word in caption.lower().split())
    shares = {
        language: sum(words[word] for word in frequent.split()) / words.total()
        for language, frequent in _WORDS.items()
    }
    best = max(shares, key=shares.__getitem__)
    return best if shares[best] >= _LEAST else UNKNOWN


def is_medical(captions: Sequence[str]) -> bool:
    """Whether many captions have words of radiology."""
    stems = tuple(_MEDICAL.split())
    found = sum(
        any(word.startswith(stems) for word in caption.lower().split())
        or any(word in caption for word in _MEDICAL_UNSPACED)
        for caption in captions
    )
    return found >= _MANY * len(captions)


def has_case(captions: Iterable[str]) -> bool:
    """Whether most letters are of a script with capitals."""
    letters = [c for c in "".join(captions)[:_MOST_LETTERS] if c.isalpha()]
    return 2 * sum(c.lower() != c or c.upper() != c for c in letters) > len(letters)


def _script(text: str) -> str:
    """The script of most letters; of Japanese text, that of its kana."""
    letters = Counter(c for c in text if c.isalpha())
    scripts: Counter[str] = Counter()
    for letter, number in letters.items():
        scripts[unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]] += number
    for kana in ("HIRAGANA", "KATAKANA"):
        if 10 * scripts[kana] > letters.total():
            return kana
    return scripts.most_common(1)[0][0] if scripts else "UNKNOWN"

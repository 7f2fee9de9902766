"""Guesses of the script and the language of a caption, to find those that differ from the rest."""

import re
import unicodedata
from collections import Counter

_WORD = re.compile(r"\w+")
_KANA = ("HIRAGANA", "KATAKANA")
_FUNCTION_WORDS = {
    "English": "the of and with is are there on this that its from two",
    "German": "der das und ist mit ein eine einem einer auf im nicht von sind zwei",
    "French": "le les des une est avec dans sur du et aux sont deux",
    "Spanish": "el los las una con del muy hay sobre está dos",
    "Italian": "il gli di che un una con della nel sono due",
    "Portuguese": "os um uma com não do da em são dois está",
    "Dutch": "het een van de en met op zijn niet twee",
}
"""Frequent words by language; those of several languages count for all of them."""
_WORDS = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}
_LEAST_WORDS = 2


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

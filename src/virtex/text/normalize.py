"""Normalisation of captions: what becomes of letters, case and marks before text is encoded."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

Normalization = Literal["published", "nfkc_lower", "nfc", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)

# SentencePiece writes a space as ▁, which it would read back from other text as well.
_SPACES = re.compile(r"[\s▁]+")
# Thai and Lao sara am, which NFKC takes apart and no keyboard writes in two parts.
_AM = (("\u0e4d\u0e32", "\u0e33"), ("\u0ecd\u0eb2", "\u0eb3"))
_EXAMPLES = 5


def normalize_caption(text: str, normalization: Normalization = "published") -> str:
    """The normal form of a caption; idempotent.

    `published` is NFKD in lower case without combining marks, which removes accents and parts of
    letters in many scripts. `nfkc_lower` is NFKC in lower case (sara am of Thai and Lao stays one
    letter), `nfc` is NFC with its capitals, and `none` keeps all characters. In the last three, a
    run of white space becomes one space.
    """
    match normalization:
        case "published":
            return _published(text)
        case "nfkc_lower":
            # Lower case can consist of characters that NFKC composes.
            text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
            for parts, vowel in _AM:
                text = text.replace(parts, vowel)
        case "nfc":
            text = unicodedata.normalize("NFC", text)
        case "none":
            pass
        case _:
            assert_never(normalization)
    return _SPACES.sub(" ", text).strip()


def _published(text: str) -> str:
    """Decomposition comes before lower-casing, because some compatibility characters (ᴬ, ℌ)
    decompose into capitals, which the opposite order, that of the published code, would keep."""
    lowered = unicodedata.normalize("NFKD", text).lower()
    return "".join(character for character in lowered if not unicodedata.combining(character))


@dataclass(frozen=True)
class Changes:
    """What a normalisation changes in some texts, besides case.

    `characters` counts all that are not spaces, `changed` those that do not stay as they are, and
    `letters` the letters and marks among these. `examples` are the most frequent of them, in the
    form `ボ → ホ`.
    """

    characters: int
    changed: int
    letters: int
    examples: tuple[str, ...]


def find_changes(texts: Iterable[str], normalization: Normalization) -> Changes:
    """Count the characters of texts that a normalisation changes.

    Texts are composed (NFC) before they are compared, so composition does not count as a change.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(unicodedata.normalize("NFC", text))
    for character in list(counts):
        if character.isspace():
            del counts[character]
    changed = {
        character: number
        for character, number in counts.most_common()
        if normalize_caption(character, normalization) not in (character, character.lower())
    }
    letters = {c: number for c, number in changed.items() if unicodedata.category(c)[0] in "LM"}
    shown = list(letters or changed)[:_EXAMPLES]
    return Changes(
        characters=counts.total(),
        changed=sum(changed.values()),
        letters=sum(letters.values()),
        examples=tuple(
            f"{_visible(c)} → {_visible(normalize_caption(c, normalization))}" for c in shown
        ),
    )


def _visible(text: str) -> str:
    """Text for a message: a mark stands on a dotted circle, removed text is named, and what would
    look composed is spaced."""
    if not text:
        return "nothing"
    if unicodedata.normalize("NFC", text) != text:
        return " ".join(map(_visible, text))
    return f"◌{text}" if unicodedata.category(text[0])[0] == "M" else text

"""The change of a caption's words when its image is mirrored."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from virtex.errors import UserError
from virtex.text.mirror_words import Pair, language_pairs
from virtex.text.normalize import Normalization, normalize_caption
from virtex.text.scripts import is_unspaced, marks_class


@dataclass(frozen=True)
class MirrorWords:
    """Words and phrases that are exchanged in a caption; can be pickled, for loader workers.

    Each side of a pair replaces the other one; of several pairs with the same word, the first
    decides what replaces it. The longest phrase that fits is replaced, as whole words, except where
    its first or last letter is of a script without spaces. Pairs are compared in lower case, and
    capitals are kept: *Links* becomes *Rechts*.
    """

    pairs: tuple[Pair, ...]

    @classmethod
    def normalized(cls, pairs: Sequence[Pair], normalization: Normalization) -> "MirrorWords":
        """The pairs as they are found in captions after `normalization`.

        Raises UserError for a pair of which nothing is left.
        """
        forms = [
            (normalize_caption(one, normalization), normalize_caption(other, normalization))
            for one, other in pairs
        ]
        for (one, other), form in zip(pairs, forms, strict=True):
            if not all(side.strip() for side in form):
                raise UserError(
                    f"DATA.MIRROR_WORDS: the text normalisation {normalization} leaves nothing of"
                    f" a side of {f'{one}/{other}'!r}; change the pair or DATA.TEXT_NORMALIZATION"
                )
        if normalization == "none":  # so that captions may be in either form
            forms += [
                (unicodedata.normalize(form, one), unicodedata.normalize(form, other))
                for form in ("NFC", "NFD")
                for one, other in pairs
            ]
        return cls(tuple(dict.fromkeys(forms)))

    def swap(self, caption: str) -> str:
        """The caption of the mirrored image; `caption` is normalised."""
        lowered = caption.lower()
        if not any(word in lowered for word in self._signs):  # most captions, so found fast
            return caption
        return self._pattern.sub(self._replacement, caption)

    def _replacement(self, match: re.Match[str]) -> str:
        found = match[0]
        other = self._others.get(" ".join(found.lower().split()))
        # Case-insensitive matching knows some letters as equal that lower case keeps apart.
        return found if other is None else _with_case_of(found, other)

    @cached_property
    def _others(self) -> dict[str, str]:
        others: dict[str, str] = {}
        for pair in self.pairs:
            one, other = (" ".join(side.lower().split()) for side in pair)
            others.setdefault(one, other)
            others.setdefault(other, one)
        return others

    @cached_property
    def _signs(self) -> tuple[str, ...]:
        """Words of which every caption holds one that holds a phrase."""
        phrases = self._others.keys()
        shortest = (one for one in phrases if not any(o in one for o in phrases - {one}))
        return tuple({phrase.split()[0] for phrase in shortest})

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        groups: dict[tuple[bool, bool], list[str]] = {}
        for phrase in sorted(self._others, key=len, reverse=True):
            ends = is_unspaced(phrase[0]), is_unspaced(phrase[-1])
            groups.setdefault(ends, []).append(r"\s+".join(map(re.escape, phrase.split())))
        letter = rf"[\w{marks_class()}]"
        return re.compile(
            "|".join(
                ("" if begins else f"(?<!{letter})")
                + f"(?:{'|'.join(phrases)})"
                + ("" if ends else f"(?!{letter})")
                for (begins, ends), phrases in groups.items()
            ),
            re.IGNORECASE,
        )


def _with_case_of(found: str, other: str) -> str:
    """`other`, in lower case, with the capitals of `found`, word by word where that is possible."""
    words, others = found.split(), other.split()
    if len(words) != len(others):
        words, others = [found], [other]
    return " ".join(map(_cased, words, others))


def _cased(found: str, other: str) -> str:
    if found == found.lower():
        return other
    if len(found) > 1 and found == found.upper():
        return other.upper()
    return other[0].upper() + other[1:] if found[0] != found[0].lower() else other


ENGLISH = MirrorWords(language_pairs("english"))

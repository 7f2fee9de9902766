"""Which tokens of a caption make up each of its words."""

from collections.abc import Sequence
from dataclasses import dataclass

from virtex.text.tokenizer import Tokenizer

_START = "▁"


@dataclass(frozen=True)
class Word:
    """A word, and the places of its pieces among the tokens."""

    text: str
    places: tuple[int, ...]


def split_words(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Word]:
    """The words of `tokenizer.decode(ids)` in order; special and unknown tokens are in none.

    A piece with a leading ▁ starts a word, and so does the first.
    """
    groups: list[list[int]] = []
    for place, index in enumerate(ids):
        if index in tokenizer.special_ids:
            continue
        if not groups or tokenizer.token(index).startswith(_START):
            groups.append([])
        groups[-1].append(place)
    words = [Word(tokenizer.decode([ids[p] for p in group]), tuple(group)) for group in groups]
    return [word for word in words if word.text]  # ▁ alone is none

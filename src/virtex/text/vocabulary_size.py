"""The size of a vocabulary that some captions support."""

from collections import Counter
from collections.abc import Iterable, Sequence

from virtex.text.normalize import Normalization, normalize_caption
from virtex.text.tokenizer import Tokenizer, train

_WORD_START = "▁"


def train_supported(
    captions: Sequence[str], normalization: Normalization, *, occurrences: int, most: int
) -> bytes:
    """The model of the largest vocabulary in which each piece occurs often enough.

    That is at least `occurrences` times inside the words of the captions. It has at most about
    `most` pieces, and never less than all single characters, which may be rarer. Byte-pair encoding
    only adds pieces to those of a smaller vocabulary, so this is the size before the first piece
    that is too rare. Deterministic, as `train`; raises UserError if there is no text.
    """
    texts = [normalize_caption(text, normalization) for text in captions]
    characters = set("".join(texts)) | {_WORD_START}
    tokenizer = Tokenizer.from_bytes(
        train(captions, max(most, len(characters) + 4), normalization, at_most=True)
    )
    pieces = [tokenizer.token(index) for index in tokenizer.ordinary_ids.tolist()]
    merged = [piece for piece in pieces if len(piece) > 1]
    counts = _count(merged, (word for text in texts for word in text.split()))
    rare = (place for place, piece in enumerate(merged) if counts[piece] < occurrences)
    size = tokenizer.vocab_size - len(merged) + next(rare, len(merged))
    return train(captions, size, normalization)


def _count(pieces: Sequence[str], words: Iterable[str]) -> Counter[str]:
    """How often each piece occurs in the words."""
    known = set(pieces)
    beginnings = {piece[:end] for piece in pieces for end in range(1, len(piece) + 1)}
    counts: Counter[str] = Counter()
    for word, number in Counter(words).items():
        text = _WORD_START + word
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                part = text[start:end]
                if part not in beginnings:
                    break
                if part in known:
                    counts[part] += number
    return counts

"""The words that are exchanged in the captions of mirrored images, from the configuration."""

from virtex.config.data import Data
from virtex.config.specs import parse_mirror_words
from virtex.text.mirror_words import LANGUAGES, Pair, language_pairs


def mirror_pairs(data: Data) -> tuple[Pair, ...]:
    """The pairs of words of `DATA.MIRROR_WORDS`, in order of their priority."""
    pairs: list[Pair] = []
    for given in parse_mirror_words(data.mirror_words):
        if isinstance(given, tuple):
            pairs.append(given)
        else:
            pairs += next(language_pairs(name) for name in LANGUAGES if name == given)
    return tuple(pairs)

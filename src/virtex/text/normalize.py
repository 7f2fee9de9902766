"""The normal form of a caption, and the change of its words when the image is mirrored."""

import re
import unicodedata

_LEFT_OR_RIGHT = re.compile(r"\b(?:left|right)\b")


def normalize_caption(text: str) -> str:
    """The caption in lower case, NFKD, without combining marks; idempotent.

    Decomposition comes before lower-casing, because some compatibility characters (ᴬ, ℌ) decompose
    into capitals, which the opposite order, that of the published code, would keep.
    """
    lowered = unicodedata.normalize("NFKD", text).lower()
    return "".join(character for character in lowered if not unicodedata.combining(character))


def swap_left_right(text: str) -> str:
    """Exchange the whole words *left* and *right*; `text` is normalised, *bright* stays bright."""
    return _LEFT_OR_RIGHT.sub(lambda word: "right" if word[0] == "left" else "left", text)

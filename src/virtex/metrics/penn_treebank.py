"""Penn Treebank tokens of English captions, as the published COCO caption evaluation takes them.

The published evaluation runs Java's Stanford PTBTokenizer (CoreNLP 3.4.1) with `-preserveLines
-lowerCase` and then drops a list of punctuation tokens. This module behaves like both together:
at each place in the text the rule whose match is the longest wins, the first of several that are as
long. Quotation marks and the like, which are dropped in the end, are not told apart.
"""

import re
import unicodedata
from functools import cache

from virtex.metrics.penn_treebank_rules import (
    ABBREVIATIONS,
    CAPITALIZED,
    DIGIT,
    LETTER,
    NUMBERED,
    RULES,
    SUPERSCRIPT,
    SYMBOL,
    TITLES,
)

_PUNCTUATION = re.compile(r"''?|``?|[?!,:;]|\.{1,4}|-{1,4}|\u2010")
"""What the published evaluation drops; brackets stay, as its list has them in capitals."""

_WRITTEN = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "\u2018": "`", "\u201b": "`", "\u2039": "`", "\u2019": "'", "\u203a": "'",
    "\u201c": "``", "\u00ab": "``", "\u201d": "''", "\u00bb": "''", '"': "''",
    "\u2013": "--", "\u2014": "--", "\u2015": "--", "\u2026": "...",
    "\u00a2": "cents", "\u00a3": "#", "\u00a4": "$", "\u20a0": "$", "\u20ac": "$",
    "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'",
    "&nbsp;": " ", "&MD;": "--", "&mdash;": "--", "&ndash;": "--",
}  # fmt: skip
"""How a token is written that is one character or entity."""
_IN_WORDS = re.compile(r"[()\u2018\u2019]|(?<=[A-Z])&amp;(?=[A-Z])|&apos;")
_KEPT = frozenset(character for character in _WRITTEN if len(character) == 1) | {"\u2010", "\u2044"}
"""Characters beyond ASCII that the rules know themselves."""
_SYMBOLS = re.compile(
    "[\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00bf\u00d7\u00f7"
    "\u0589\u05be\u05c0\u05c3\u05f3\u05f4\u0606-\u060c\u061b\u061f\u066a\u066d\u06d4\u0964\u0965\u0e3f"
    "\u2016\u2017\u201a\u201e-\u2023\u2030-\u2038\u203b\u203e-\u2042\u207a-\u207e\u208a-\u208e\u20a4"
    "\u2100-\u214f\u2155-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6]"
)
"""Symbols that Java's tokenizer knows; others are dropped."""
_SUPERSCRIPTS = frozenset("\u00b2\u00b3\u00b9\u2070\u2074\u2075\u2076\u2077\u2078\u2079")

_PLAIN = re.compile(
    r"(?P<word>[A-Za-z]+)(?=[ \n])|(?P<last>[A-Za-z]{2,})(?=[.,;:!?][ \n])|[.,;:!?]?[ \n]+"
)
"""What most captions are made of and no rule changes: words, and a mark or blanks behind them."""
_CONTRACTED = frozenset(("cannot", "gonna", "gotta", "lemme", "gimme", "wanna"))
_DOTTED = _CONTRACTED.union(
    " ".join((TITLES, ABBREVIATIONS, CAPITALIZED.lower(), NUMBERED)).split()
)


def penn_treebank_tokens(caption: str) -> list[str]:
    """The tokens of a caption, in lower case and without punctuation."""
    text = caption.replace("\u00ad", "")
    is_plain = text.isascii() and text.isprintable()
    # Some rules look at what follows a token; behind a caption it is the end of a line.
    shadow = (text if is_plain else "".join(map(_stand_in, text))) + "\n\n"
    tokens: list[str] = []
    position = 0
    while position < len(text):
        plain = _PLAIN.match(shadow, position)
        if plain is not None:
            word = plain[0].lower()
            if plain.lastgroup is None:
                position = plain.end()
                continue
            if word not in (_CONTRACTED if plain.lastgroup == "word" else _DOTTED):
                tokens.append(word)
                position = plain.end()
                continue
        end = _token_end(shadow, position)
        # A tag may hold blanks, at which the published evaluation divides it.
        parts = _written(text[position:end]).lower().split()
        tokens.extend(part for part in parts if not _PUNCTUATION.fullmatch(part))
        position = end
    return tokens


def _token_end(shadow: str, position: int) -> int:
    """Where the token that begins at `position` ends, by the longest match of a rule."""
    longest, end = position + 1, position + 1
    for rule in RULES:
        match = rule.match(shadow, position)
        if match is not None and match.end() > longest:
            longest, end = match.end(), match.end(match.lastindex or 0)
    return end


def _written(token: str) -> str:
    """A token of the text as the published evaluation writes it, but for the case of letters."""
    if token in _WRITTEN:
        return _WRITTEN[token]
    return _IN_WORDS.sub(lambda match: _WRITTEN[match[0]], token)


@cache
def _stand_in(character: str) -> str:
    """A character of the same class that the rules know; a blank for what is dropped."""
    if character.isascii():
        return character if character.isprintable() else " "
    if character in _KEPT:
        return character
    if character in _SUPERSCRIPTS:
        return SUPERSCRIPT
    if character > "\uffff":
        return " "
    category = unicodedata.category(character)
    if category == "Nd":
        return DIGIT
    if category[0] == "L" or (category in ("Mn", "Mc") and character < "\u0ecf"):
        return LETTER
    return SYMBOL if _SYMBOLS.match(character) else " "

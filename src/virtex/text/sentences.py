"""Sentences of a text."""

import re

_CLOSING = "\"')\\]»”’"
_END = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?][{_CLOSING}]))\s+|(?<=[。！？])\s*|\n+")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without the space between them; at least one.

    A sentence ends with a line, with `.`, `!` or `?` before a space, or with `。`, `！` or `？`.
    Abbreviations are not known, so `Dr. Who` has two parts.
    """
    sentences = [part.strip() for part in _END.split(text)]
    return [sentence for sentence in sentences if sentence] or [text]

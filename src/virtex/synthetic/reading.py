"""Evaluation of generated captions: what a caption states, and whether it is true of an image.

Any text can be read. A colour belongs to the shape right after it ("red circle"); one right before
"background" is the background's and is ignored.
"""

from collections.abc import Iterable
from itertools import pairwise

from virtex.synthetic.words import COLORS, PLURALS

_SHAPE_OF: dict[str, str] = {
    word: shape for shape, plural in PLURALS.items() for word in (shape, plural)
}


def _followed(caption: str) -> list[tuple[str, str]]:
    """Each word with the one after it ("" after the last)."""
    words = caption.lower().replace(".", " ").replace(",", " ").split()
    return list(pairwise([*words, ""]))


def stated_shapes(caption: str) -> list[str]:
    """Every shape that is named, in order, in the singular."""
    return [_SHAPE_OF[word] for word, _ in _followed(caption) if word in _SHAPE_OF]


def stated_colors(caption: str) -> list[str]:
    """Every colour that is named, in order, except the background's."""
    return [
        word
        for word, following in _followed(caption)
        if word in COLORS and following != "background"
    ]


def stated_pairs(caption: str) -> list[tuple[str, str]]:
    """Every colour with the shape right after it, in order."""
    return [
        (word, _SHAPE_OF[following])
        for word, following in _followed(caption)
        if word in COLORS and following in _SHAPE_OF
    ]


def is_true(caption: str, objects: Iterable[tuple[str, str]]) -> bool:
    """Whether every stated shape and colour is in the image, in any combination.

    `objects` are the image's (colour, shape) pairs. False for a caption that names no shape or no
    colour.
    """
    pairs = list(objects)
    shapes, colors = stated_shapes(caption), stated_colors(caption)
    return (
        bool(shapes and colors)
        and set(shapes) <= {shape for _, shape in pairs}
        and set(colors) <= {color for color, _ in pairs}
    )


def is_true_in_pairs(caption: str, objects: Iterable[tuple[str, str]]) -> bool:
    """Whether, beyond `is_true`, every shape is stated in a colour that one such object has."""
    pairs = list(objects)
    stated = stated_pairs(caption)
    return (
        is_true(caption, pairs)
        and len(stated) == len(stated_shapes(caption)) == len(stated_colors(caption))
        and set(stated) <= set(pairs)
    )

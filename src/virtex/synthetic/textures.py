"""The stripes or dots of an object's second colour, as polygons that its shape clips."""

import math
from typing import assert_never

from virtex.synthetic.outlines import Point, around
from virtex.synthetic.scenes import Object

_STRIPES = 4  # across an object
_DOT_ROWS = 4
_DOT_DIAMETER = 0.55  # over the distance of two dots
_DOT_POINTS = 12
_REACH = 0.75  # from the middle of an object, in diameters; beyond its farthest corner


def texture_polygons(item: Object) -> list[tuple[Point, ...]]:
    """Polygons in the unit square that cover the object's box and more."""
    match item.look.texture:
        case "plain":
            return []
        case "striped":
            polygons = _stripes()
        case "dotted":
            polygons = _dots()
        case _:
            assert_never(item.look.texture)
    return [_placed(polygon, item) for polygon in polygons]


def _stripes() -> list[tuple[Point, ...]]:
    """Vertical bands as wide as the gaps between them, one of them in the middle."""
    period = 1 / _STRIPES
    half = period / 4
    stripe = [(-half, -_REACH), (half, -_REACH), (half, _REACH), (-half, _REACH)]
    middles = [index * period for index in range(-_STRIPES, _STRIPES + 1)]
    return [tuple((middle + x, y) for x, y in stripe) for middle in middles]


def _dots() -> list[tuple[Point, ...]]:
    step = 1 / _DOT_ROWS
    dot = list(around([step * _DOT_DIAMETER / 2], _DOT_POINTS))
    places = [(index + 0.5) * step for index in range(-_DOT_ROWS + 1, _DOT_ROWS - 1)]
    return [tuple((x + px, y + py) for px, py in dot) for x in places for y in places]


def _placed(polygon: tuple[Point, ...], item: Object) -> tuple[Point, ...]:
    """The polygon in the object's size and position, turned by its grain."""
    sine, cosine = math.sin(math.radians(item.grain)), math.cos(math.radians(item.grain))
    x, y = item.center
    return tuple(
        (
            x + round(px * cosine - py * sine, 6) * item.diameter,
            y + round(px * sine + py * cosine, 6) * item.diameter,
        )
        for px, py in polygon
    )

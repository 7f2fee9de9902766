"""The outline of every shape: one closed polygon, even for the ring.

The ring is cut along a seam without width ("keyhole"): its signed area is that of the ring, an
even-odd fill leaves the hole, and it is one polygon, as COCO's segmentations require.
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import assert_never

from virtex.synthetic.words import Shape

Point = tuple[float, float]

_CIRCLE_POINTS = 48
_RING_HOLE = 0.5  # radius of the hole over the radius of the ring
_STAR_WAIST = 0.42  # radius of the inner corners over the radius of the tips
_CROSS_ARM = 0.36  # width of an arm over the width of the cross


def around(radii: list[float], count: int) -> Iterator[Point]:
    """`count` points clockwise from the top, with alternating radii."""
    for index in range(count):
        angle = 2 * math.pi * index / count
        radius = radii[index % len(radii)]
        yield radius * math.sin(angle), -radius * math.cos(angle)


def _upright(shape: Shape) -> list[Point]:
    match shape:
        case "circle":
            return list(around([1.0], _CIRCLE_POINTS))
        case "square":
            return [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        case "triangle":
            return list(around([1.0], 3))
        case "star":
            return list(around([1.0, _STAR_WAIST], 10))
        case "cross":
            a = _CROSS_ARM
            points = [(-a, -1.0), (a, -1.0), (a, -a)]
            for _ in range(3):
                points += [(-y, x) for x, y in points[-3:]]  # a quarter turn
            return points
        case "ring":
            outer = list(around([1.0], _CIRCLE_POINTS))
            inner = list(around([_RING_HOLE], _CIRCLE_POINTS))
            return [*outer, outer[0], inner[0], *reversed(inner)]
        case _:
            assert_never(shape)


@cache
def outline(shape: Shape, degrees: int) -> tuple[Point, ...]:
    """The shape turned clockwise; its box is centred at the origin, with a longer side of 1.

    Coordinates are rounded to 1e-6, which hides differences between machines' sines.
    """
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    turned = [(x * cosine - y * sine, x * sine + y * cosine) for x, y in _upright(shape)]
    xs, ys = zip(*turned, strict=True)
    longer = max(max(xs) - min(xs), max(ys) - min(ys))
    middle_x, middle_y = (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2
    return tuple(
        (round((x - middle_x) / longer, 6), round((y - middle_y) / longer, 6)) for x, y in turned
    )


def extent(shape: Shape, degrees: int) -> tuple[float, float]:
    """Width and height of the outline's box; the larger one is 1."""
    xs, ys = zip(*outline(shape, degrees), strict=True)
    return max(xs) - min(xs), max(ys) - min(ys)


def polygon_area(points: tuple[Point, ...]) -> float:
    """The area of a closed polygon (shoelace), without the holes of a keyhole polygon."""
    following = (*points[1:], points[0])
    pairs = zip(points, following, strict=True)
    return abs(sum(ax * by - bx * ay for (ax, ay), (bx, by) in pairs)) / 2

"""Positions of a scene's objects: inside the image, apart, and clearly beside or above."""

from dataclasses import replace
from random import Random

from virtex.synthetic.outlines import Point
from virtex.synthetic.scenes import Object

MARGIN = 0.02  # free strip along the image's edges
GAP = 0.03  # least distance of two boxes along the axis that separates them
_SLOPE = 0.4  # largest offset of two objects across their axis, over their distance along it

Interval = tuple[float, float]
_WHOLE: Interval = (MARGIN, 1 - MARGIN)
_LOW: Interval = (MARGIN, 0.5 - GAP / 2)
_HIGH: Interval = (0.5 + GAP / 2, 1 - MARGIN)


def place(random: Random, objects: list[Object]) -> tuple[Object, ...]:
    """Move one, two or three objects to random positions.

    Two are beside or above each other, three in three of the image's quarters. The longer sides of
    two boxes and GAP must fit between the margins; each of three must fit in a quarter.
    """
    match objects:
        case [alone]:
            return (_placed_inside(random, alone, (_WHOLE, _WHOLE)),)
        case [first, second]:
            return _place_two(random, first, second)
        case _:
            quarters = [(_LOW, _LOW), (_HIGH, _LOW), (_LOW, _HIGH), (_HIGH, _HIGH)]
            random.shuffle(quarters)
            return tuple(
                _placed_inside(random, item, quarter)
                for item, quarter in zip(objects, quarters[: len(objects)], strict=True)
            )


def _moved(item: Object, center: Point) -> Object:
    return replace(item, center=(round(center[0], 6), round(center[1], 6)))


def _halves(item: Object) -> Point:
    left, top, right, bottom = item.box
    return (right - left) / 2, (bottom - top) / 2


def _placed_inside(random: Random, item: Object, region: tuple[Interval, Interval]) -> Object:
    """The object at a random position with its box inside two intervals, of x and of y."""
    x, y = (
        random.uniform(low + half, high - half)
        for (low, high), half in zip(region, _halves(item), strict=True)
    )
    return _moved(item, (x, y))


def _place_two(random: Random, first: Object, second: Object) -> tuple[Object, Object]:
    """Place one object beside or above the other, in either order, and close to the same axis."""
    along = random.randrange(2)  # 0: beside, 1: above
    swapped = random.random() < 0.5
    before, after = (second, first) if swapped else (first, second)
    halves = _halves(before), _halves(after)
    room = 1 - 2 * MARGIN - GAP - 2 * (halves[0][along] + halves[1][along])
    skips = sorted((random.uniform(0, room), random.uniform(0, room)))
    start = MARGIN + skips[0] + halves[0][along]
    end = start + halves[0][along] + GAP + (skips[1] - skips[0]) + halves[1][along]
    bound = 1 - MARGIN - max(halves[0][1 - along], halves[1][1 - along])
    across = random.uniform(1 - bound, bound)
    shift = random.uniform(-_SLOPE, _SLOPE) * (end - start)
    across_after = min(bound, max(1 - bound, across + shift))
    points: tuple[Point, Point] = ((start, across), (end, across_after))
    if along == 1:
        points = ((across, start), (across_after, end))
    placed = _moved(before, points[0]), _moved(after, points[1])
    return placed[::-1] if swapped else placed

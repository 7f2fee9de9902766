import math

import pytest

from virtex.synthetic.outlines import extent, outline, polygon_area
from virtex.synthetic.words import SHAPES, Shape

DEGREES = (-8, 0, 3, 8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", DEGREES)
def test_box_is_centred_with_longer_side_one(shape: Shape, degrees: int) -> None:
    xs, ys = zip(*outline(shape, degrees), strict=True)
    assert max(extent(shape, degrees)) == pytest.approx(1, abs=2e-6)
    assert (min(xs), min(ys)) == pytest.approx((-max(xs), -max(ys)), abs=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", DEGREES)
def test_mirror_image_is_the_shape_turned_the_other_way(shape: Shape, degrees: int) -> None:
    def rounded(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
        return {(round(x, 4) + 0.0, round(y, 4) + 0.0) for x, y in points}

    mirrored = [(-x, y) for x, y in outline(shape, degrees)]
    assert rounded(mirrored) == rounded(list(outline(shape, -degrees)))


def test_areas_by_hand() -> None:
    def area(shape: Shape) -> float:
        return polygon_area(outline(shape, 0))

    polygon_over_circle = 48 / (2 * math.pi) * math.sin(2 * math.pi / 48)
    assert area("square") == 1
    assert area("triangle") == pytest.approx(math.sqrt(3) / 4, abs=1e-5)
    assert area("cross") == pytest.approx(1 - 0.64**2, abs=1e-5)
    assert area("circle") == pytest.approx(math.pi / 4 * polygon_over_circle, abs=1e-5)
    assert area("ring") == pytest.approx(area("circle") * (1 - 0.5**2), abs=1e-5)


def test_turned_square_fills_less_of_its_box() -> None:
    turn = math.radians(8)
    side = 1 / (math.cos(turn) + math.sin(turn))
    assert polygon_area(outline("square", 8)) == pytest.approx(side**2, abs=1e-5)

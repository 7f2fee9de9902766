"""A scene as a value: the objects in an image and their positions."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from virtex.synthetic.outlines import Point, extent, outline, polygon_area
from virtex.synthetic.words import Backdrop, Color, Shape, Size, Texture

RGB = tuple[int, int, int]


class Box(NamedTuple):
    """Left, top, right and bottom edge in the unit square."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Look:
    """The properties of an object that a caption can state."""

    shape: Shape
    color: Color
    texture: Texture
    size: Size


@dataclass(frozen=True)
class Object:
    """One drawn shape.

    `diameter` is the longer side of its box. `rgb` is a tint of `look.color`. `degrees` turns the
    shape, `grain` is the direction of its stripes or rows of dots; both clockwise.
    """

    look: Look
    center: Point
    diameter: float
    degrees: int
    grain: int
    rgb: RGB

    @property
    def box(self) -> Box:
        """The smallest box around the outline."""
        (x, y), (width, height) = self.center, extent(self.look.shape, self.degrees)
        half_width, half_height = width * self.diameter / 2, height * self.diameter / 2
        return Box(x - half_width, y - half_height, x + half_width, y + half_height)

    @property
    def polygon(self) -> tuple[Point, ...]:
        """The outline at its position in the unit square."""
        x, y = self.center
        return tuple(
            (x + px * self.diameter, y + py * self.diameter)
            for px, py in outline(self.look.shape, self.degrees)
        )

    @property
    def area(self) -> float:
        """The area of the shape in the unit square."""
        return polygon_area(outline(self.look.shape, self.degrees)) * self.diameter**2


@dataclass(frozen=True)
class Background:
    """One colour, softly clouded; `cloud_seed` chooses the clouds."""

    color: Backdrop
    rgb: RGB
    cloud_seed: int


@dataclass(frozen=True)
class Scene:
    """An image's content: one object, two different ones, or two or three that look the same."""

    objects: tuple[Object, ...]
    background: Background

    @property
    def looks(self) -> tuple[tuple[Look, int], ...]:
        """Each different look with the number of objects that have it, in the objects' order."""
        counts: dict[Look, int] = {}
        for item in self.objects:
            counts[item.look] = counts.get(item.look, 0) + 1
        return tuple(counts.items())

    def mirrored(self) -> "Scene":
        """The same scene with left and right exchanged (its clouds stay in place)."""
        return replace(self, objects=tuple(_mirrored(item) for item in self.objects))


def _mirrored(item: Object) -> Object:
    x, y = item.center
    return replace(item, center=(1 - x, y), degrees=-item.degrees, grain=-item.grain)

"""A scene as a value: the objects in an image and their positions."""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from virtex.synthetic.outlines import Point, extent, outline, polygon_area
from virtex.synthetic.words import Backdrop, Color, Shape, Size, Texture

RGB = tuple[int, int, int]


class Box(NamedTuple):
    """The edges of a box in the unit square."""

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

    `diameter` is the longer side of its box. `rgb` is a tint of `look.color`. `degrees` is the
    rotation of the shape, `grain` the direction of its stripes or rows of dots; both clockwise.
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
    """One colour with soft clouds, which `cloud_seed` determines."""

    color: Backdrop
    rgb: RGB
    cloud_seed: int


@dataclass(frozen=True)
class Scene:
    """The content of an image: one object, two different ones, or two or three that look alike."""

    objects: tuple[Object, ...]
    background: Background

    @property
    def looks(self) -> tuple[tuple[Look, int], ...]:
        """Each different look with the number of objects that have it, in the objects' order."""
        return tuple(Counter(item.look for item in self.objects).items())

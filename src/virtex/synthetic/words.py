"""The vocabulary of scenes; the captions use exactly these words."""

from typing import Literal, get_args

Shape = Literal["circle", "square", "triangle", "star", "cross", "ring"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
Backdrop = Literal["white", "black", "gray", "brown", "pink"]
Texture = Literal["plain", "striped", "dotted"]
Size = Literal["small", "medium", "large"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLORS: tuple[Color, ...] = get_args(Color)
BACKDROPS: tuple[Backdrop, ...] = get_args(Backdrop)
TEXTURES: tuple[Texture, ...] = get_args(Texture)
SIZES: tuple[Size, ...] = get_args(Size)

PLURALS: dict[Shape, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "cross": "crosses",
    "ring": "rings",
}
# The longer side of an object's box over the image's side, with gaps between ambiguous sizes.
DIAMETERS: dict[Size, tuple[float, float]] = {
    "small": (0.30, 0.34),
    "medium": (0.37, 0.42),
    "large": (0.45, 0.72),
}
NUMBERS: dict[int, str] = {1: "one", 2: "two", 3: "three"}
MAX_OBJECTS = max(NUMBERS)

"""The RGB values of colour words."""

from random import Random

from virtex.synthetic.scenes import RGB
from virtex.synthetic.words import BACKDROPS, Backdrop, Color

OBJECT_RGB: dict[Color, RGB] = {
    "red": (222, 35, 35),
    "orange": (255, 140, 10),
    "yellow": (250, 225, 40),
    "green": (35, 160, 60),
    "blue": (30, 90, 230),
    "purple": (155, 40, 160),
    "black": (25, 25, 25),
    "white": (248, 248, 248),
}
BACKDROP_RGB: dict[Backdrop, RGB] = {
    "white": (242, 242, 242),
    "black": (28, 28, 28),
    "gray": (140, 140, 140),
    "brown": (140, 98, 62),
    "pink": (245, 165, 190),
}
_TINT = 10  # largest difference of a channel from its word's colour, in 1/255
_SHADE_PERCENT = 32


def tint(rgb: RGB, random: Random) -> RGB:
    """A random colour close to `rgb`."""
    red, green, blue = (min(255, max(0, c + random.randint(-_TINT, _TINT))) for c in rgb)
    return red, green, blue


def shade(rgb: RGB) -> RGB:
    """The second colour of a texture: darker, or lighter if the first is very dark."""
    toward = 255 if max(rgb) < 100 else 0
    red, green, blue = (c + (toward - c) * _SHADE_PERCENT // 100 for c in rgb)
    return red, green, blue


def backdrops_for(colors: set[Color]) -> list[Backdrop]:
    """The backgrounds that contrast with objects of these colours; never empty."""
    return [backdrop for backdrop in BACKDROPS if backdrop not in colors]

"""Random scenes: the scene of each (seed, split, index).

It uses Python's `random.Random`, as the streams of numpy's generators may change with its versions.
"""

from dataclasses import replace
from random import Random

from virtex.synthetic.palette import BACKDROP_RGB, OBJECT_RGB, backdrops_for, tint
from virtex.synthetic.placing import place
from virtex.synthetic.scenes import Background, Look, Object, Scene
from virtex.synthetic.words import (
    COLORS,
    DIAMETERS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    TEXTURES,
    Shape,
)

_ALONE = 0.7  # probability of one object
_DIFFERENT = 0.2  # probability of two different ones; otherwise two or three look alike
_LARGEST_IN_COMPANY = 0.46  # two of these fit beside each other
_SIZE_WEIGHTS = (1, 2, 5)
_TEXTURE_WEIGHTS = (6, 1, 1)
_MAX_TURN = 8  # degrees; a square must not become a diamond
_GRAINS = (0, 45, 90, 135)


def scene_random(seed: int, split: str, index: int) -> Random:
    """The random generator of one scene; each (seed, split, index) has its own."""
    return Random(f"virtex scene {seed} {split} {index}")


def compose(random: Random, max_objects: int = MAX_OBJECTS, shape: Shape | None = None) -> Scene:
    """A random scene of at most `max_objects` (1 to 3) objects; `shape` fixes the first one's."""
    first = _look(random, shape)
    drawn = random.random()
    if max_objects == 1 or drawn < _ALONE:
        objects = [_object(random, first, largest=1.0)]
    elif drawn < _ALONE + _DIFFERENT:
        looks = (first, _look_unlike(random, first))
        objects = [_object(random, look, _LARGEST_IN_COMPANY) for look in looks]
    else:
        model = _object(random, first, _LARGEST_IN_COMPANY)
        count = random.randint(2, max_objects)
        objects = [replace(model, degrees=_turn(random)) for _ in range(count)]
    background = _background(random, objects)
    return Scene(place(random, objects), background)


def _look(random: Random, shape: Shape | None) -> Look:
    return Look(
        shape=random.choice(SHAPES) if shape is None else shape,
        color=random.choice(COLORS),
        texture=random.choices(TEXTURES, _TEXTURE_WEIGHTS)[0],
        size=random.choices(SIZES, _SIZE_WEIGHTS)[0],
    )


def _look_unlike(random: Random, other: Look) -> Look:
    """A look with another shape and colour, so that no word fits both objects by accident."""
    look = _look(random, random.choice([shape for shape in SHAPES if shape != other.shape]))
    return replace(look, color=random.choice([color for color in COLORS if color != other.color]))


def _turn(random: Random) -> int:
    return random.randint(-_MAX_TURN, _MAX_TURN)


def _object(random: Random, look: Look, largest: float) -> Object:
    """An object in the middle of the image."""
    low, high = DIAMETERS[look.size]
    return Object(
        look=look,
        center=(0.5, 0.5),
        diameter=random.uniform(low, min(high, largest)),
        degrees=_turn(random),
        grain=random.choice(_GRAINS),
        rgb=tint(OBJECT_RGB[look.color], random),
    )


def _background(random: Random, objects: list[Object]) -> Background:
    color = random.choice(backdrops_for({item.look.color for item in objects}))
    return Background(color, tint(BACKDROP_RGB[color], random), random.getrandbits(32))

"""True captions of a scene: five of them, each worded differently.

Captions are lower-case words with single spaces and no punctuation. A colour is always right before
its shape ("a large red circle", "three striped blue stars") or before "background". Left, right,
top and bottom relate two objects to each other, so they stay true when an image is cropped.
"""

from collections.abc import Callable
from random import Random

from virtex.synthetic.scenes import Look, Object, Scene
from virtex.synthetic.words import NUMBERS, PLURALS

CAPTIONS_PER_SCENE = 5
_ADJECTIVE_CHANCE = 0.2

_Phrase = Callable[[Look], str]


def captions(scene: Scene, random: Random) -> tuple[str, ...]:
    """Five different captions, in random order."""

    def single(look: Look) -> str:
        return _with_article(f"{_adjectives(look, random)}{look.color} {look.shape}")

    def plural(look: Look) -> str:
        return f"{_adjectives(look, random)}{look.color} {PLURALS[look.shape]}"

    if len(scene.objects) == 1:
        sentences = _of_one(scene, single)
    elif len(scene.looks) == 2:
        sentences = _of_two(scene, single)
    else:
        sentences = _of_alike(scene, plural)
    return tuple(random.sample(sentences, CAPTIONS_PER_SCENE))


def _adjectives(look: Look, random: Random) -> str:
    """Size and texture with a space after each: sometimes, and never medium or plain."""
    words: list[str] = []
    if look.size != "medium" and random.random() < _ADJECTIVE_CHANCE:
        words.append(look.size)
    if look.texture != "plain" and random.random() < _ADJECTIVE_CHANCE:
        words.append(look.texture)
    return "".join(f"{word} " for word in words)


def _with_article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _on_background(scene: Scene) -> str:
    return f"on a {scene.background.color} background"


def _of_one(scene: Scene, single: _Phrase) -> list[str]:
    look = scene.objects[0].look
    sentences = [
        single(look),
        f"there is {single(look)}",
        f"{single(look)} {_on_background(scene)}",
        f"a picture of {single(look)}",
        f"{single(look)} alone",
        f"one {look.color} {look.shape}",
    ]
    if look.texture != "plain":
        pattern = "stripes" if look.texture == "striped" else "dots"
        sentences.append(f"{_with_article(f'{look.color} {look.shape}')} with {pattern}")
    return sentences


def _of_two(scene: Scene, single: _Phrase) -> list[str]:
    before, after = _in_order(scene.objects)
    if are_beside(scene.objects):
        sentences = [
            f"{single(before)} to the left of {single(after)}",
            f"{single(after)} to the right of {single(before)}",
            f"{single(before)} on the left and {single(after)} on the right",
        ]
        near = "next to"
    else:
        sentences = [
            f"{single(before)} above {single(after)}",
            f"{single(after)} below {single(before)}",
            f"{single(before)} at the top and {single(after)} at the bottom",
        ]
        near = "near"
    # In reading order, as a random order cannot be learnt.
    sentences += [
        f"{single(before)} and {single(after)}",
        f"there is {single(before)} and {single(after)}",
        f"{single(before)} {near} {single(after)}",
        f"{single(before)} and {single(after)} {_on_background(scene)}",
    ]
    return sentences


def are_beside(objects: tuple[Object, ...]) -> bool:
    """Whether two objects are beside each other rather than one above the other."""
    first, second = objects
    across, down = (abs(a - b) for a, b in zip(first.center, second.center, strict=True))
    return across > down


def _in_order(objects: tuple[Object, ...]) -> tuple[Look, Look]:
    """The looks of two objects: the left one first, or the upper one."""
    axis = 0 if are_beside(objects) else 1
    first, second = sorted(objects, key=lambda item: item.center[axis])
    return first.look, second.look


def _of_alike(scene: Scene, plural: _Phrase) -> list[str]:
    look = scene.objects[0].look
    number = NUMBERS[len(scene.objects)]
    sentences = [
        f"{number} {plural(look)}",
        f"there are {number} {plural(look)}",
        f"{number} {plural(look)} {_on_background(scene)}",
        f"a picture of {number} {plural(look)}",
        f"a group of {number} {plural(look)}",
    ]
    if len(scene.objects) == 2:
        arrangement = "side by side" if are_beside(scene.objects) else "one above the other"
        sentences.append(f"{number} {plural(look)} {arrangement}")
        sentences.append(f"a pair of {plural(look)}")
    return sentences

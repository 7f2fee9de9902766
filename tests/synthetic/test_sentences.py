"""The judge here is a second, strict reader: it knows every sentence word for word."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.synthetic.mirroring import mirrored

from virtex.synthetic.composing import compose, scene_random
from virtex.synthetic.reading import is_true, is_true_in_pairs
from virtex.synthetic.scenes import Object, Scene
from virtex.synthetic.sentences import captions
from virtex.text.mirroring import ENGLISH
from virtex.text.normalize import normalize_caption

COUNTS = {"a": 1, "an": 1, "one": 1, "a pair of": 2, "two": 2, "three": 3}
THING = (
    r"(?:(?P<count{0}>an?|one|two|three|a pair of) )(?:(?P<size{0}>small|large) )?"
    r"(?:(?P<texture{0}>striped|dotted) )?(?P<color{0}>[a-z]+) "
    r"(?P<shape{0}>circle|square|triangle|star|cross|ring)(?P<plural{0}>s|es)?"
)
SENTENCE = re.compile(
    r"(?P<opening>there is |there are |a picture of |a group of )?"
    + THING.format(1)
    + r"(?P<closing> alone| with stripes| with dots| side by side| one above the other)?"
    + r"(?: (?P<relation>and|near|next to|above|below|to the left of|to the right of"
    + r"|on the left and|on the right and|at the top and|at the bottom and) "
    + THING.format(2)
    + r"(?P<place> on the right| on the left| at the bottom| at the top)?)?"
    + r"(?: on a (?P<background>[a-z]+) background)?"
)


@st.composite
def captioned_scenes(draw: st.DrawFn) -> tuple[Scene, tuple[str, ...]]:
    random = scene_random(draw(st.integers(0, 2**32)), "train", draw(st.integers(0, 1000)))
    scene = compose(random, draw(st.integers(1, 3)))
    return scene, captions(scene, random)


def judge(caption: str, scene: Scene) -> None:
    """Asserts every single word."""
    found = SENTENCE.fullmatch(caption)
    assert found, caption
    first = meant(found, "1", scene)
    if found["background"]:
        assert found["background"] == scene.background.color
    if found["opening"] in ("there is ", "there are "):
        assert (found["opening"] == "there are ") == (len(first) > 1)
    if found["relation"]:
        judge_relation(found, first[0], meant(found, "2", scene)[0], scene)
    else:
        assert len(scene.looks) == 1
        assert len(first) == len(scene.objects)
        judge_closing(found["closing"], first)


def meant(found: re.Match[str], which: str, scene: Scene) -> list[Object]:
    """The objects that a phrase means; asserts that all of its words fit them."""
    shape, color = found[f"shape{which}"], found[f"color{which}"]
    objects = [o for o in scene.objects if (o.look.shape, o.look.color) == (shape, color)]
    assert len(objects) == COUNTS[found[f"count{which}"]]
    assert (len(objects) > 1) == bool(found[f"plural{which}"])
    for item in objects:
        assert found[f"size{which}"] in (None, item.look.size)
        assert found[f"texture{which}"] in (None, item.look.texture)
    return objects


def judge_relation(found: re.Match[str], first: Object, second: Object, scene: Scene) -> None:
    assert first != second
    assert len(scene.objects) == 2
    left, above = first.box.right < second.box.left, first.box.bottom < second.box.top
    right, below = first.box.left > second.box.right, first.box.top > second.box.bottom
    assert {
        "and": True,
        "near": above or below,
        "next to": left or right,
        "above": above,
        "below": below,
        "to the left of": left,
        "to the right of": right,
        "on the left and": left and found["place"] == " on the right",
        "on the right and": right and found["place"] == " on the left",
        "at the top and": above and found["place"] == " at the bottom",
        "at the bottom and": below and found["place"] == " at the top",
    }[found["relation"]]


def judge_closing(closing: str | None, objects: list[Object]) -> None:
    boxes = [item.box for item in objects]
    assert {
        None: True,
        " alone": len(objects) == 1,
        " with stripes": objects[0].look.texture == "striped",
        " with dots": objects[0].look.texture == "dotted",
        " side by side": boxes[0].right < boxes[-1].left or boxes[0].left > boxes[-1].right,
        " one above the other": boxes[0].bottom < boxes[-1].top or boxes[0].top > boxes[-1].bottom,
    }[closing]


@settings(max_examples=300, deadline=None)
@given(captioned_scenes())
def test_every_word_of_every_caption_is_true(captioned: tuple[Scene, tuple[str, ...]]) -> None:
    scene, sentences = captioned
    for caption in sentences:
        judge(caption, scene)


@settings(deadline=None)
@given(captioned_scenes())
def test_mirrored_image_fits_the_caption_with_left_and_right_swapped(
    captioned: tuple[Scene, tuple[str, ...]],
) -> None:
    scene, sentences = captioned
    for caption in sentences:
        judge(ENGLISH.swap(caption), mirrored(scene))


@settings(deadline=None)
@given(captioned_scenes())
def test_five_different_captions_that_normalisation_keeps(
    captioned: tuple[Scene, tuple[str, ...]],
) -> None:
    sentences = captioned[1]
    assert len(set(sentences)) == 5
    assert all(normalize_caption(caption) == caption for caption in sentences)
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", caption) for caption in sentences)


@settings(deadline=None)
@given(captioned_scenes())
def test_own_captions_pass_the_judge_of_generated_ones(
    captioned: tuple[Scene, tuple[str, ...]],
) -> None:
    scene, sentences = captioned
    objects = [(item.look.color, item.look.shape) for item in scene.objects]
    for caption in sentences:
        assert is_true(caption, objects)
        assert is_true_in_pairs(caption, objects)


def test_article_fits_the_next_word() -> None:
    sentences = []
    for index in range(300):
        random = scene_random(1, "train", index)
        sentences.extend(captions(compose(random), random))
    text = " \n ".join(sentences)
    assert re.search(r"\ban orange", text)
    assert not re.search(r"\ba orange", text)
    assert not re.search(r"\ban (?!orange)", text)

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.synthetic.mirroring import mirrored

from virtex.synthetic.composing import compose, scene_random
from virtex.synthetic.drawing import SUPERSAMPLES, draw, encode_jpeg
from virtex.synthetic.palette import BACKDROP_RGB, OBJECT_RGB, backdrops_for
from virtex.synthetic.scenes import RGB, Scene
from virtex.synthetic.words import COLORS

SIDE = 80
SCENES = st.builds(lambda seed: compose(scene_random(seed, "train", 0)), st.integers(0, 2**32))


def without_objects(scene: Scene) -> Scene:
    return Scene((), scene.background)


@settings(deadline=None)
@given(SCENES, st.sampled_from((32, 64, 80, 133)))
def test_boxes_are_those_of_the_drawn_pixels(scene: Scene, side: int) -> None:
    for item in scene.objects:
        alone = Scene((item,), scene.background)
        changed = (draw(alone, side) != draw(without_objects(scene), side)).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        left, top, right, bottom = (edge * side for edge in item.box)
        fine = 1 / SUPERSAMPLES  # a sample on the outline counts as inside
        found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        for pixel, edge in zip(found, (left, top, right, bottom), strict=True):
            assert pixel == pytest.approx(edge, abs=1 + fine)
        assert left - fine <= columns[0] + 1
        assert top - fine <= rows[0] + 1
        assert columns[-1] <= right + fine
        assert rows[-1] <= bottom + fine


@settings(deadline=None)
@given(SCENES)
def test_area_is_that_of_the_drawn_pixels(scene: Scene) -> None:
    side = 320
    for item in scene.objects:
        alone = Scene((item,), scene.background)
        changed = (draw(alone, side) != draw(without_objects(scene), side)).any(axis=2)
        # Half of the pixels on the edge are too many; a cross has 4 diameters of edge, a star more.
        assert changed.sum() == pytest.approx(item.area * side**2, abs=4 * item.diameter * side)


@settings(deadline=None)
@given(SCENES)
def test_mirrored_scene_is_the_mirrored_image(scene: Scene) -> None:
    """Within a quarter of a pixel: at most that part of an edge pixel differs."""
    mirror_image = draw(mirrored(scene), SIDE).astype(int)
    background = draw(without_objects(scene), SIDE).astype(int)
    expected = (draw(scene, SIDE).astype(int) - background)[:, ::-1]
    differing = np.abs((mirror_image - background) - expected).max(axis=2) > 120
    assert differing.mean() < 0.01


@settings(deadline=None)
@given(SCENES)
def test_most_of_an_object_shows_its_named_colour(scene: Scene) -> None:
    image = draw(scene, SIDE).astype(int)
    for item in scene.objects:
        mask = np.zeros((SIDE, SIDE), np.uint8)
        cv2.fillPoly(mask, [np.rint(np.array(item.polygon) * SIDE - 0.5).astype(np.int32)], 1)
        pixels = image[cv2.erode(mask, np.ones((3, 3), np.uint8)) == 1]
        assert nearest(pixels.mean(axis=0)) == item.look.color


def nearest(rgb: np.ndarray) -> str:
    return min(COLORS, key=lambda color: distance(OBJECT_RGB[color], rgb))


def distance(first: RGB | np.ndarray, second: RGB | np.ndarray) -> float:
    """In CIE Lab, where 2 can just be seen."""
    pixels = np.array([[first, second]], np.float32) / 255
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[0]
    return float(np.linalg.norm(lab[0] - lab[1]))


def test_colours_are_far_apart() -> None:
    for color in COLORS:
        others = [OBJECT_RGB[other] for other in COLORS if other != color]
        behind = [BACKDROP_RGB[backdrop] for backdrop in backdrops_for({color})]
        assert min(distance(OBJECT_RGB[color], rgb) for rgb in others + behind) > 35


def test_edges_are_smooth() -> None:
    scene = next(
        scene
        for scene in (compose(scene_random(0, "train", index)) for index in range(100))
        if scene.background.color == "black" and scene.objects[0].look.color == "white"
    )
    brightness = draw(scene, SIDE).min(axis=2)
    assert ((brightness > 80) & (brightness < 200)).any()


def test_image_and_file_are_the_same_twice() -> None:
    scene = compose(scene_random(0, "train", 3))
    first, second = draw(scene, SIDE), draw(scene, SIDE)
    assert first.dtype == np.uint8
    assert first.shape == (SIDE, SIDE, 3)
    assert encode_jpeg(first) == encode_jpeg(second)


def test_jpeg_shows_the_image() -> None:
    image = draw(compose(scene_random(0, "train", 3)), SIDE)
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(image))).convert("RGB"))
    assert np.abs(decoded.astype(int) - image).mean() < 3

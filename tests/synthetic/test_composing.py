import hashlib
import itertools
import json
from dataclasses import asdict

from hypothesis import given, settings
from hypothesis import strategies as st

from virtex.synthetic.composing import compose, scene_random
from virtex.synthetic.placing import GAP, MARGIN
from virtex.synthetic.scenes import Scene
from virtex.synthetic.sentences import captions
from virtex.synthetic.words import DIAMETERS, SHAPES, Shape

SEEDS = st.integers(0, 2**32)
SCENES = st.builds(
    lambda seed, index, most: compose(scene_random(seed, "train", index), most),
    SEEDS,
    st.integers(0, 10**6),
    st.integers(1, 3),
)


@settings(deadline=None)
@given(SCENES)
def test_objects_stand_inside_and_apart(scene: Scene) -> None:
    for item in scene.objects:
        assert min(item.box) >= MARGIN - 1e-6
        assert max(item.box) <= 1 - MARGIN + 1e-6
    for a, b in itertools.combinations([item.box for item in scene.objects], 2):
        gaps = (b.left - a.right, a.left - b.right, b.top - a.bottom, a.top - b.bottom)
        assert max(gaps) >= GAP - 1e-5


@settings(deadline=None)
@given(SCENES)
def test_two_objects_differ_in_shape_and_colour_or_in_nothing(scene: Scene) -> None:
    looks = [look for look, _ in scene.looks]
    assert len({look.shape for look in looks}) == len({look.color for look in looks}) == len(looks)
    assert len(looks) == 1 or len(scene.objects) == 2


@settings(deadline=None)
@given(SCENES)
def test_two_objects_are_plainly_beside_or_above_each_other(scene: Scene) -> None:
    if len(scene.objects) == 2:
        across, down = (
            abs(a - b) for a, b in zip(*(item.center for item in scene.objects), strict=True)
        )
        assert max(across, down) > 2 * min(across, down)


@settings(deadline=None)
@given(SCENES)
def test_words_for_size_and_background_fit(scene: Scene) -> None:
    for item in scene.objects:
        low, high = DIAMETERS[item.look.size]
        assert low <= item.diameter <= high
        assert item.look.color != scene.background.color


@settings(deadline=None)
@given(SEEDS, st.sampled_from(SHAPES))
def test_one_object_of_the_asked_shape(seed: int, shape: Shape) -> None:
    scene = compose(scene_random(seed, "train", 0), max_objects=1, shape=shape)
    assert [item.look.shape for item in scene.objects] == [shape]


def test_scene_is_a_function_of_seed_split_and_index() -> None:
    keys = list(itertools.product((0, 1), ("train", "val"), range(50)))
    forwards = {key: compose(scene_random(*key)) for key in keys}
    backwards = {key: compose(scene_random(*key)) for key in reversed(keys)}
    assert forwards == backwards
    assert len(set(forwards.values())) == len(keys)


def test_every_arrangement_and_word_occurs() -> None:
    scenes = [compose(scene_random(0, "train", index)) for index in range(600)]
    kinds = {(len(scene.objects), len(scene.looks)) for scene in scenes}
    assert kinds == {(1, 1), (2, 2), (2, 1), (3, 1)}
    words: set[str] = set()
    for index in range(600):
        random = scene_random(0, "train", index)
        words.update(
            word for caption in captions(compose(random), random) for word in caption.split()
        )
    assert len(words) == 60


def test_most_objects_is_kept() -> None:
    for most in (1, 2, 3):
        scenes = [compose(scene_random(0, "train", index), most) for index in range(200)]
        assert max(len(scene.objects) for scene in scenes) == most


def test_scenes_are_those_of_every_other_machine() -> None:
    """A change of this hash is a change of the data: results before and after do not compare."""
    drawn = []
    for index in range(200):
        random = scene_random(0, "train", index)
        scene = compose(random)
        drawn.append([asdict(scene), captions(scene, random)])
    digest = hashlib.sha256(json.dumps(drawn).encode()).hexdigest()
    assert digest == "a4cd103af448082594b25091a32585e740f0bff8deac7cd9e95544ec79a53de0"

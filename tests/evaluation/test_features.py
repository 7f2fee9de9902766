import numpy as np
import pytest
import torch
from PIL import Image
from tests import small

from virtex.errors import UserError
from virtex.evaluation.feature_cache import cached_features
from virtex.evaluation.features import (
    FeatureSettings,
    data_hash,
    pooled_features,
)
from virtex.evaluation.preprocessing import Preprocessing, center_crops
from virtex.training.precision import named_precision

CPU = torch.device("cpu")
STEPS = Preprocessing.resize_and_crop(small.SIDE, small.SIDE)


def settings(**changes):
    return FeatureSettings(named_precision("float32", CPU), CPU, **changes)


@pytest.fixture
def paths(tmp_path):
    """More files than fit into one batch; few pixels each."""
    directory = tmp_path / "images"
    directory.mkdir()
    rng = np.random.default_rng(0)
    for index in range(70):
        pixels = rng.integers(0, 256, (20, 16 + index % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{index:03}.png")
    return sorted(directory.iterdir())


def test_crops_are_the_middle_of_the_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 26, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (crop,) = center_crops([tmp_path / "wide.png"], 16)
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), pixels[:, 5:21])


def test_features_are_the_means_of_each_images_grid(paths):
    visual = small.backbone().train()
    before = small.state_of(visual)
    features = pooled_features(visual, paths, STEPS, settings())
    small.assert_same(small.state_of(visual), before)
    assert (features.values.shape, features.values.dtype) == ((70, small.CHANNELS), torch.float32)
    assert features.kept.tolist() == list(range(70))
    visual.eval()
    for index in (0, 63, 64, 69):
        with torch.no_grad():
            grid = visual(center_crops([paths[index]], small.SIDE))
        # Convolutions of one picture and of a batch may add up in another order.
        torch.testing.assert_close(
            features.values[index], grid[0].mean(dim=(1, 2)), rtol=1e-4, atol=1e-5
        )


def test_processes_that_read_images_change_nothing(paths):
    one, other = (
        pooled_features(small.backbone(), paths, STEPS, settings(workers=workers))
        for workers in (0, 2)
    )
    assert torch.equal(one.values, other.values)


def test_images_that_cannot_be_read_are_left_out_and_named(paths):
    paths[1].write_bytes(paths[0].read_bytes()[:100])
    paths[2].unlink()
    features = pooled_features(small.backbone(), paths, STEPS, settings())
    assert features.kept.tolist() == [0, *range(3, 70)]
    for name, line in zip(["001.png", "002.png"], features.bad, strict=True):
        assert name in line
    whole = pooled_features(small.backbone(), [paths[0], *paths[3:]], STEPS, settings())
    torch.testing.assert_close(features.values, whole.values, rtol=1e-4, atol=1e-5)


def test_no_readable_image_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"none of 1 images can be read; the first: .*a\.png"):
        pooled_features(small.backbone(), [tmp_path / "a.png"], STEPS, settings())


def cached(paths, cache, sha256="a", steps=STEPS):
    """The features, and whether they were computed."""
    calls = []
    visual = small.backbone()
    visual.register_forward_hook(lambda *_: calls.append(1))
    counted = []
    features = cached_features(visual, sha256, paths, steps, settings(cache=cache), counted.append)
    assert sum(counted) == len(paths)
    return features, bool(calls)


def test_cached_features_are_those_that_were_computed(paths, tmp_path):
    paths[1].write_bytes(b"no image")
    one, computed = cached(paths, tmp_path / "cache")
    other, again = cached(paths, tmp_path / "cache")
    assert (computed, again) == (True, False)
    assert torch.equal(one.values, other.values)
    assert (one.kept.tolist(), one.bad) == (other.kept.tolist(), other.bad)


def test_other_weights_steps_or_files_are_computed_anew(paths, tmp_path):
    cached(paths, tmp_path)
    assert cached(paths, tmp_path, sha256="b")[1]
    assert cached(paths, tmp_path, steps=Preprocessing.resize_and_crop(18, 16))[1]
    assert cached(paths[:-1], tmp_path)[1]
    paths[0].write_bytes(paths[1].read_bytes())
    assert cached(paths, tmp_path)[1]
    assert not cached(paths, tmp_path)[1]


@pytest.mark.parametrize("length", [0, 10, 400, -30])
def test_a_damaged_cache_is_replaced(paths, tmp_path, length):
    one, _ = cached(paths[:3], tmp_path)
    (file,) = (tmp_path / "features").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:length])
    other, computed = cached(paths[:3], tmp_path)
    assert computed
    assert torch.equal(one.values, other.values)
    assert not cached(paths[:3], tmp_path)[1]


def test_a_copy_of_the_data_has_the_same_hash(paths, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    copies = [copy / path.name for path in paths[:3]]
    for path, other in zip(paths, copies, strict=False):
        other.write_bytes(path.read_bytes())
    labels = np.array([0, 1, 0])
    one = data_hash(paths[0].parent, paths[:3], labels)
    assert data_hash(copy, copies, labels) == one
    assert data_hash(copy, copies, 1 - labels) != one
    assert data_hash(copy, copies[:2], labels) != one

import numpy as np
import pytest
import torch
from PIL import Image
from tests import small

from virtex.data.images import BadImage
from virtex.evaluation.features import center_crops, pooled_features


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """More files than fit into one batch; few pixels each."""
    directory = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for index in range(103):
        pixels = rng.integers(0, 256, (20, 16 + index % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{index:03}.png")
    return sorted(directory.iterdir())


def test_crops_are_the_middle_of_the_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 26, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    (crop,) = center_crops([tmp_path / "wide.png"], 16)
    assert np.array_equal(crop.permute(1, 2, 0).numpy(), pixels[:, 5:21])


def test_features_are_the_means_of_each_images_grid(paths):
    visual = small.backbone()
    features = pooled_features(visual, paths, small.SIDE)
    assert (features.shape, features.dtype) == ((103, small.CHANNELS), torch.float32)
    assert not visual.training
    for index in (0, 99, 100, 102):
        with torch.no_grad():
            grid = visual(center_crops([paths[index]], small.SIDE))
        # Float32 convolutions of one picture and of a hundred may add up in another order.
        torch.testing.assert_close(features[index], grid[0].mean(dim=(1, 2)), rtol=1e-4, atol=1e-5)


def test_features_leave_batch_norm_alone(paths):
    visual = small.backbone().train()
    before = visual.cnn.bn1.running_mean.clone()
    pooled_features(visual, paths[:4], small.SIDE)
    assert torch.equal(visual.cnn.bn1.running_mean, before)


def test_an_unreadable_image_is_named(paths, tmp_path):
    (tmp_path / "bad.png").write_bytes(paths[0].read_bytes()[:100])
    with pytest.raises(BadImage, match=r"bad\.png"):
        pooled_features(small.backbone(), [paths[0], tmp_path / "bad.png"], small.SIDE)

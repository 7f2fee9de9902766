import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from tests.evaluation.dense.trees import picture, scene

from virtex.data.dataset import Key
from virtex.data.images import DEFAULT_LIMITS
from virtex.errors import UserError
from virtex.evaluation.dense.mask_data import IGNORED, MaskSplit, read_mask_data
from virtex.evaluation.dense.segmentation import (
    PixelClassifier,
    SegmentationExample,
    confusion,
    intersection_over_union,
    segmentation_figures,
)


def mask_of(boxes, size=(64, 64)):
    mask = np.zeros(size, np.uint8)
    for name, x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = {"cat": 1, "dog": 2}[name]
    return mask


def write_masks(root, train=4, test=2):
    """Images of scenes with their masks, of which one has a palette; returns the root."""
    for split, first, count in (("train", 0, train), ("val", 100, test)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(first, first + count):
            Image.fromarray(picture(scene(number))).save(root / split / f"images/{number}.jpg")
            mask = Image.fromarray(mask_of(scene(number)))
            if number == first:
                mask.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
            mask.save(root / split / f"masks/{number}.png")
    return root


def test_masks_are_indices_with_or_without_a_palette(tmp_path):
    data = read_mask_data(write_masks(tmp_path), None)
    assert data.classes == ("0", "1", "2")
    assert [len(data.train), len(data.test)] == [4, 2]
    expected = sum(np.bincount(mask_of(scene(n)).ravel(), minlength=3) for n in (100, 101))
    assert data.test.pixels.tolist() == expected.tolist()


def test_all_problems_are_named_at_once(tmp_path):
    root = write_masks(tmp_path / "masks", train=6)
    names = tmp_path / "names.txt"
    names.write_text("ground\ncat\n")
    train = root / "train"
    (train / "masks/0.png").unlink()
    (train / "images/1.jpg").unlink()
    Image.fromarray(mask_of([], (60, 64))).save(train / "masks/2.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(train / "masks/3.png")
    (train / "images/5.jpg").write_bytes(b"no image")
    for path in (root / "val/masks").iterdir():
        Image.fromarray(np.full((64, 64), IGNORED, np.uint8)).save(path)
    with pytest.raises(UserError) as raised:
        read_mask_data(root, names)
    message = str(raised.value)
    assert "\n" not in message
    for part in (
        "7 problem(s)",
        "0.jpg has no mask",
        "1.png has no image",
        "2.png has 64 x 60 pixels, its image 64 x 64",
        "3.png is not a mask that can be read (its mode is RGB",
        "4.png has the indices 2, but there are 2 classes",
        "5.jpg is not an image that can be read",
        "val/masks has no labelled pixel",
    ):
        assert part in message


def test_a_missing_directory_and_bad_names_are_named(tmp_path):
    with pytest.raises(UserError, match=r"4 problem|2 problem.*expected train/images"):
        read_mask_data(tmp_path, None)
    names = tmp_path / "names.txt"
    names.write_text("cat\ncat\n")
    with pytest.raises(UserError, match="names 'cat' twice"):
        read_mask_data(write_masks(tmp_path / "masks"), names)


@pytest.mark.parametrize("side", [48, 64])
def test_crops_and_mirroring_move_image_and_mask_together(tmp_path, side):
    root = write_masks(tmp_path)
    images, masks = ((root / f"train/{kind}",) for kind in ("images", "masks"))
    split = MaskSplit((images[0] / "0.jpg",), (masks[0] / "0.png",), np.zeros(3, np.int64))
    make = SegmentationExample(split, side, True, 0, DEFAULT_LIMITS)
    seen = set()
    for epoch in range(5):
        example = make(Key(epoch, 0), 0)
        image, mask = example["image"].numpy().astype(int), example["mask"].numpy()
        assert image.shape == (side, side, 3)
        assert mask.shape == (side, side)
        shown = np.zeros_like(mask)
        shown[image[:, :, 0] > 170], shown[image[:, :, 2] > 170] = 1, 2
        assert (shown == mask).mean() > 0.93  # all but the blurred edges
        seen.add(mask.tobytes())
    assert len(seen) == 5


def test_what_an_elongated_image_lacks_is_ignored(tmp_path):
    Image.new("RGB", (800, 20)).save(tmp_path / "long.png")
    Image.new("L", (800, 20)).save(tmp_path / "mask.png")
    split = MaskSplit((tmp_path / "long.png",), (tmp_path / "mask.png",), np.zeros(2, np.int64))
    example = SegmentationExample(split, 64, True, 0, DEFAULT_LIMITS)(Key(0, 0), 0)
    assert example["image"].shape == (64, 64, 3)
    assert set(example["mask"].unique().tolist()) == {0, IGNORED}


def slow_iou(labels, predicted, classes):
    found = []
    for one in range(classes):
        shared = union = 0
        for label, prediction in zip(labels.ravel(), predicted.ravel(), strict=True):
            if label != IGNORED:
                shared += label == prediction == one
                union += one in (label, prediction)
        found.append(shared / union if union else np.nan)
    return found


def test_mean_iou_is_that_of_a_slow_reference():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 4, IGNORED], (3, 8, 9)).astype(np.uint8)
    predicted = np.where(
        rng.random(labels.shape) < 0.6, labels, rng.choice([0, 1, 4], labels.shape)
    )
    predicted[labels == IGNORED] = 3  # neither labelled nor, where it counts, predicted
    counts = confusion(labels, predicted, 5)
    expected = slow_iou(labels, predicted, 5)
    np.testing.assert_allclose(intersection_over_union(counts), expected)
    assert np.isnan(expected[3])
    miou, accuracy = segmentation_figures(counts, {})
    assert miou.value == pytest.approx(100 * np.nanmean(expected))
    assert miou.settings["classes_counted"] == 4
    counted = labels != IGNORED
    assert accuracy.value == pytest.approx(100 * (labels == predicted)[counted].mean())


def test_the_loss_is_the_mean_over_labelled_pixels():
    torch.manual_seed(0)
    head = PixelClassifier(5, 3).eval()
    grid, mask = torch.randn(2, 5, 4, 4), torch.randint(0, 3, (2, 16, 16)).byte()
    mask[0, :9] = IGNORED
    scores = head.scores(grid, (16, 16))
    chosen = scores.permute(0, 2, 3, 1)[mask != IGNORED]
    expected = F.cross_entropy(chosen, mask[mask != IGNORED].long())
    loss = head({"grid": grid, "mask": mask})["loss"]
    assert torch.allclose(loss, expected, atol=1e-6)
    assert head({"grid": grid, "mask": torch.full_like(mask, IGNORED)})["loss"] == 0

import numpy as np
import pytest
import torch
from tests.evaluation.dense.trees import picture, write_coco

from virtex.data.dataset import VALIDATION_EPOCH, Key
from virtex.data.images import DEFAULT_LIMITS, BadImage
from virtex.errors import UserError
from virtex.evaluation.dense.coco_tree import read_coco_objects
from virtex.evaluation.dense.examples import DetectionExample, Examples, ImageSizes, collate


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = write_coco(tmp_path_factory.mktemp("coco"))
    return read_coco_objects(root, masks=True, on_bad_image="error").train


def make(split, *sizes, training=True):
    return DetectionExample(split, ImageSizes(sizes, 64, 128), training, 0, DEFAULT_LIMITS)


def extent(pixels):
    """The box around the pixels that are set."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_published_sizes():
    voc, coco = ImageSizes.up_to(800, None, 0.6), ImageSizes.up_to(800, None, 0.8)
    assert voc.training == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    assert coco.training == (640, 672, 704, 736, 768, 800)
    assert (voc.test, voc.longest) == (800, 1333)


@pytest.mark.parametrize("size", [64, 48, 96])
def test_boxes_and_masks_lie_where_the_objects_are_drawn(split, size):
    """Of mirrored and resized images as well; a mask is its box, as the objects are rectangles."""
    mirrored = 0
    for epoch in range(6):
        example = make(split, size)(Key(epoch, 1), 1)
        image = example["image"].numpy()
        assert image.shape == (size, size, 3)
        cat = (image[:, :, 0] > 170) & (image[:, :, 1] < 80)
        row = example["labels"].tolist().index(1)
        box, mask = example["boxes"][row].numpy(), example["masks"][row].numpy()
        assert np.abs(box - extent(cat)).max() <= 1
        assert np.abs(box - extent(mask)).max() <= 1
        mirrored += box[0] > size / 2 - 1 or box[2] > 0.75 * size
    assert 0 < mirrored < 6


def test_an_example_is_a_function_of_its_key_and_of_the_test_alone(split):
    one, again = (make(split, 48, 56, 64)(Key(3, 2), 2) for _ in range(2))
    assert all(torch.equal(one[name], again[name]) for name in ("image", "boxes", "masks"))
    test = make(split, 48, training=False)(Key(VALIDATION_EPOCH, 0), 0)
    assert test["image"].shape == (64, 64, 3)
    assert "boxes" not in test
    assert test["image"].numpy().tolist() == picture([("cat", 7, 6, 33, 34)]).tolist()


def test_a_batch_pads_images_and_masks_alike(split):
    examples = [make(split, 64)(Key(0, 0), 0), make(split, 32)(Key(0, 1), 1)]
    batch = collate(examples)
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["size"].tolist() == [[64, 64], [32, 32]]
    assert batch["count"].tolist() == [1, 2]
    assert batch["masks"].shape == (3, 64, 64)
    assert not batch["image"][1, :, 32:].any()
    assert not batch["masks"][1:, 32:].any()
    assert torch.equal(batch["boxes"][1:], examples[1]["boxes"])


def test_bad_images_are_replaced_in_training_and_left_out_of_the_test():
    def maker(key, row):
        if row in (1, 2):
            raise BadImage(str(row), "it is damaged")
        return {"row": row, "epoch": key.epoch}

    def read(count, keys, **options):
        examples = Examples(count, maker, **{"on_bad_image": "skip", **options})
        return examples.examples([Key(0, key) for key in keys])

    found, bad = read(4, [0, 1], training=True)
    assert [one["row"] for one in found] == [0, 3]
    assert len(bad) == 2
    found, bad = read(4, [0, 1], training=False)
    assert [one["row"] for one in found] == [0]
    with pytest.raises(BadImage):
        read(4, [1], training=True, on_bad_image="error")
    with pytest.raises(UserError, match="2 images in a row are bad"):
        Examples(2, lambda key, _: maker(key, 1), training=True, on_bad_image="skip").examples(
            [Key(0, 0)]
        )

from dataclasses import replace

import numpy as np
import pytest

from virtex.data.dataset import VALIDATION_EPOCH, ExampleDataset, Key
from virtex.data.images import BadImage, read_image
from virtex.data.sources.coco import CocoCaptions
from virtex.data.transforms import CenterCrop, ColorJitter, HorizontalFlip, RandomResizedCrop
from virtex.errors import UserError

TRANSFORMS = [RandomResizedCrop(16), HorizontalFlip(), ColorJitter()]


def encode(record, augmented, rng):
    caption = record.captions[rng.integers(len(record.captions))]
    return {"id": record.image_id, "caption": caption, "image": augmented.image}


@pytest.fixture
def records(write_coco):
    return CocoCaptions(write_coco({i: ["a", "b", "c"] for i in range(1, 9)}), "train")


def dataset_of(records, seed=0, on_bad_image="error"):
    return ExampleDataset(records, TRANSFORMS, encode, seed, on_bad_image)


def same(one, other):
    return one["caption"] == other["caption"] and np.array_equal(one["image"], other["image"])


def test_an_example_is_a_function_of_seed_epoch_and_position(records):
    dataset, again = dataset_of(records), dataset_of(records)
    for key in [Key(0, 0), Key(5, 3), Key(VALIDATION_EPOCH, 3)]:
        assert same(dataset[key], again[key])
        assert not same(dataset[key], dataset[Key(key.epoch - 1 if key.epoch else 1, key.position)])
        assert not same(dataset[key], dataset_of(records, seed=1)[key])


def test_the_caption_is_drawn_anew_in_each_epoch(records):
    dataset = dataset_of(records)
    assert {dataset[epoch, 0]["caption"] for epoch in range(30)} == {"a", "b", "c"}


def test_a_bad_image_is_an_error_with_its_path(records):
    path = records[2].image
    path.write_bytes(path.read_bytes()[:300])
    dataset = dataset_of(records)
    with pytest.raises(BadImage, match=str(path)):
        dataset.examples([Key(0, 1), Key(0, 2)])


def test_skipping_takes_the_next_readable_record_and_reports_each_bad_file(records):
    for position in (2, 3, 7):
        records[position].image.write_bytes(b"")
    keys = [Key(4, position) for position in (1, 2, 7)]
    examples, bad = dataset_of(records, on_bad_image="skip").examples(keys)
    assert [example["id"] for example in examples] == [2, 5, 1]  # ids are positions + 1
    assert [error.path for error in bad] == [records[position].image for position in (2, 3, 7)]


def test_a_replacement_is_not_augmented_as_the_record_itself_is(records):
    records[2].image.write_bytes(b"")
    keys = [Key(0, 2), Key(0, 3)]
    (replacement, itself), _ = dataset_of(records, on_bad_image="skip").examples(keys)
    assert replacement["id"] == itself["id"]
    assert not same(replacement, itself)


def test_skipping_leaves_good_examples_as_they_were(records):
    before = dataset_of(records)[0, 5]
    records[2].image.write_bytes(b"")
    examples, _ = dataset_of(records, on_bad_image="skip").examples([Key(0, 2), Key(0, 5)])
    assert same(examples[1], before)


def test_skipping_in_validation_counts_nothing_twice(records):
    records[2].image.write_bytes(b"")
    keys = [Key(VALIDATION_EPOCH, position) for position in (2, 3)]
    examples, bad = dataset_of(records, on_bad_image="skip").examples(keys)
    assert [example["id"] for example in examples] == [4]
    assert [error.path for error in bad] == [records[2].image]


def test_skipping_ends_when_no_file_is_readable(records):
    for record in records:
        record.image.unlink()
    with pytest.raises(UserError, match=r"8 images in a row are bad.*No such file"):
        dataset_of(records, on_bad_image="skip").examples([Key(0, 5)])


def test_errors_of_transforms_are_raised_as_they_are(records):
    dataset = ExampleDataset(records, [CenterCrop(99)], encode, 0, "skip")
    with pytest.raises(UserError, match="center_crop"):
        dataset.examples([Key(0, 0)])


def test_one_of_several_images_is_drawn_as_a_function_of_the_key(records):
    class Several:
        def __len__(self):
            return len(records)

        def __getitem__(self, index):
            others = tuple(records[other].image for other in range(1, 4))
            return replace(records[index], image=records[0].image, others=others)

    plain = ExampleDataset(Several(), [], encode, 0)
    images = [records[number].image for number in range(4)]
    sums = [int(read_image(image).astype(int)[0, :5].sum()) for image in images]
    assert len(set(sums)) == 4
    drawn = [int(plain[epoch, 0]["image"].astype(int)[0, :5].sum()) for epoch in range(40)]
    assert set(drawn) == set(sums)
    assert drawn == [int(plain[epoch, 0]["image"].astype(int)[0, :5].sum()) for epoch in range(40)]

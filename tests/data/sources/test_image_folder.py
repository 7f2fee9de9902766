import pytest

from virtex.data.sources.image_folder import image_folder
from virtex.errors import UserError


def write(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_classes_and_images_are_sorted_by_name(tmp_path):
    write(tmp_path, "dog/2.jpg", "cat/b.jpg", "dog/10.jpg", "cat/a.png")
    images = image_folder(tmp_path)
    assert images.classes == ("cat", "dog")
    names = [str(path.relative_to(tmp_path)) for path in images.paths]
    assert names == ["cat/a.png", "cat/b.jpg", "dog/10.jpg", "dog/2.jpg"]
    assert images.labels == (0, 0, 1, 1)


def test_files_beside_and_directories_below_the_classes_are_no_images(tmp_path):
    write(tmp_path, "labels.json", "cat/1.jpg", "cat/deeper/2.jpg")
    assert [path.name for path in image_folder(tmp_path).paths] == ["1.jpg"]


def test_a_class_without_images_keeps_its_label(tmp_path):
    """So that two splits of the same classes agree."""
    write(tmp_path, "bird/1.jpg", "dog/1.jpg")
    (tmp_path / "cat").mkdir()
    assert image_folder(tmp_path).labels == (0, 2)


@pytest.mark.parametrize("content", [[], ["cat.jpg"]], ids=["empty", "flat"])
def test_a_root_without_classes_says_what_was_expected(tmp_path, content):
    write(tmp_path, *content)
    with pytest.raises(UserError, match=r"contains no images; expected .*/CLASS/IMAGE"):
        image_folder(tmp_path)


def test_a_root_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere contains no images"):
        image_folder(tmp_path / "nowhere")

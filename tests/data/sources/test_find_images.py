import os

import pytest

from virtex.data.images import BadImage
from virtex.data.sources.find_images import find_images, path_of
from virtex.errors import UserError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that makes empty files, and the directories above them, in the current one."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def found(root, *paths):
    return [str(path_of(image)) for image in find_images([root / path for path in paths])]


def test_a_directory_is_all_files_below_it_sorted_but_hidden_ones(tree):
    root = tree("a/2.png", "a/10.jpg", "a/1/z.txt", "a/.x.png", "a/.git/x.png", "b.png")
    assert found(root, "a") == [str(root / "a" / name) for name in ("1/z.txt", "10.jpg", "2.png")]


def test_files_come_in_the_order_given_and_once(tree):
    root = tree("a/1.png", "a/2.png", "b.png", ".c.png")
    names = [str(root / name) for name in (".c.png", "b.png", "a/2.png", "a/1.png")]
    assert found(root, ".c.png", "b.png", "a/2.png", "a", "b.png") == names


def test_links_are_followed_but_not_in_circles(tree):
    root = tree("a/1.png", "elsewhere/2.png")
    (root / "a/loop").symlink_to(root)
    (root / "a/other").symlink_to(root / "elsewhere")
    assert found(root, "a") == [
        str(root / "a" / name) for name in ("1.png", "loop/elsewhere/2.png", "other/2.png")
    ]


def test_special_files_are_left_out_and_broken_links_are_not(tree):
    root = tree("a/1.png")
    os.mkfifo(root / "a/pipe")
    (root / "a/dangling").symlink_to(root / "nowhere")
    assert found(root, "a") == [str(root / "a/1.png"), str(root / "a/dangling")]


def test_a_directory_without_files_stands_in_its_place(tree):
    root = tree("a/1.png", "empty/.hidden", "b/2.png")
    (root / "empty/also").mkdir()
    first, empty, last = find_images([root / name for name in ("a", "empty", "b")])
    assert isinstance(empty, BadImage)
    assert (empty.path, "holds no files" in empty.reason) == (root / "empty", True)
    assert (first, last) == (root / "a/1.png", root / "b/2.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_directory_that_cannot_be_listed_stands_in_its_place(tree):
    root = tree("a/1.png", "a/closed/2.png")
    (root / "a/closed").chmod(0)
    assert found(root, "a") == [str(root / "a/1.png"), str(root / "a/closed")]
    (root / "a/closed").chmod(0o700)


def test_a_path_that_does_not_exist_is_an_error(tree):
    root = tree("a.png")
    with pytest.raises(UserError, match=r"b\.png: No such file .* name image files"):
        find_images([root / "a.png", root / "b.png"])

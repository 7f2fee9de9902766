import json
from pathlib import Path

import pytest

from virtex.errors import UserError
from virtex.synthetic.publishing import LISTING, atomic_directory


def publish(output: Path, text: str, *, overwrite: bool = False) -> None:
    with atomic_directory(output, overwrite, {"seed": 0}) as root:
        (root / "images").mkdir()
        (root / "images" / "one.txt").write_text(text)


def test_appears_whole_with_its_listing(tmp_path: Path) -> None:
    output = tmp_path / "new" / "scenes"
    with atomic_directory(output, False, {"seed": 3}) as root:
        (root / "one.txt").write_text("1")
        assert not output.exists()
    assert (output / "one.txt").read_text() == "1"
    listing = json.loads((output / LISTING).read_text())
    assert listing == {"options": {"seed": 3}, "files": ["one.txt"]}
    assert list(output.parent.iterdir()) == [output]


def test_empty_directory_is_taken(tmp_path: Path) -> None:
    publish(tmp_path, "1")
    assert (tmp_path / "images/one.txt").read_text() == "1"


def publish_half(output: Path, interruption: type[BaseException]) -> None:
    with atomic_directory(output, True, {}) as root:
        (root / "half.txt").write_text("half")
        raise interruption


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, UserError, SystemExit])
def test_an_interruption_changes_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    publish(tmp_path / "scenes", "before")
    for output in (tmp_path / "scenes", tmp_path / "others"):
        with pytest.raises(interruption):
            publish_half(output, interruption)
    assert list(tmp_path.iterdir()) == [tmp_path / "scenes"]
    assert (tmp_path / "scenes/images/one.txt").read_text() == "before"


def test_full_directory_is_replaced_only_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "scenes"
    publish(output, "1")
    with pytest.raises(UserError, match="--overwrite"):
        publish(output, "2")
    assert (output / "images/one.txt").read_text() == "1"
    publish(output, "2", overwrite=True)
    assert (output / "images/one.txt").read_text() == "2"
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("stranger", ["mine.txt", "images/mine.txt"])
def test_strange_files_are_never_replaced(tmp_path: Path, stranger: str) -> None:
    output = tmp_path / "scenes"
    publish(output, "1")
    (output / stranger).write_text("precious")
    with pytest.raises(UserError, match=stranger):
        publish(output, "2", overwrite=True)
    assert (output / stranger).read_text() == "precious"


@pytest.mark.parametrize("listing", ["", "[]", "{}", '{"files": 3}'])
def test_damaged_listing_makes_every_file_a_stranger(tmp_path: Path, listing: str) -> None:
    output = tmp_path / "scenes"
    publish(output, "1")
    (output / LISTING).write_text(listing)
    with pytest.raises(UserError, match=r"images/one\.txt"):
        publish(output, "2", overwrite=True)


def publish_late(output: Path) -> None:
    with atomic_directory(output, False, {}):
        output.mkdir()
        (output / "mine.txt").write_text("precious")


def test_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "scenes"
    with pytest.raises(UserError, match="not empty"):
        publish_late(output)
    assert (output / "mine.txt").read_text() == "precious"


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "scenes").write_text("precious")
    for output in (tmp_path / "scenes", tmp_path / "scenes" / "below"):
        with pytest.raises(UserError, match="scenes"):
            publish(output, "1", overwrite=True)

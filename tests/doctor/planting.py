"""Defects that are planted in a tree in COCO's layout, each with the finding that it must give."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


class Tree:
    """A copy of a data set in COCO's layout, whose training images are changed one by one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "annotations" / "captions_train2017.json"
        self.content = json.loads(self.path.read_text())
        self.next = self.next_of_validation = 0

    def image(self) -> dict[str, object]:
        """The next image that has no defect yet."""
        self.next += 1
        return self.content["images"][self.next - 1]

    def file(self) -> Path:
        """The file of the next image."""
        return self.root / "train2017" / str(self.image()["file_name"])

    def validation_file(self) -> Path:
        """The next file of the validation split."""
        self.next_of_validation += 1
        return sorted((self.root / "val2017").iterdir())[self.next_of_validation - 1]

    def captions(self) -> list[dict[str, str]]:
        """The annotations of the next image."""
        wanted = self.image()["id"]
        return [each for each in self.content["annotations"] if each["image_id"] == wanted]

    def save(self) -> None:
        self.path.write_text(json.dumps(self.content))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _save(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, "PNG")


def _missing(tree: Tree) -> None:
    tree.file().unlink()


def _empty(tree: Tree) -> None:
    _write(tree.file(), b"")


def _truncated(tree: Tree) -> None:
    path = tree.file()
    _write(path, path.read_bytes()[: path.stat().st_size // 2])


def _not_an_image(tree: Tree) -> None:
    _write(tree.file(), b"<html>404 Not Found</html>")


def _placeholder(tree: Tree) -> None:
    image = Image.new("RGB", (64, 64), "lightgrey")
    ImageDraw.Draw(image).text((4, 20), "not available", fill="black")
    for _ in range(4):
        image.save(tree.file(), "PNG")


def _black(tree: Tree) -> None:
    _save(tree.file(), np.zeros((64, 64, 3), np.uint8))


def _tiny(tree: Tree) -> None:
    path = tree.file()
    with Image.open(path) as image:
        image.convert("RGB").resize((12, 12)).save(path, "PNG")


def _strip(tree: Tree) -> None:
    path = tree.file()
    with Image.open(path) as image:
        image.convert("RGB").resize((640, 100)).save(path, "PNG")


def _duplicate(tree: Tree) -> None:
    shutil.copy(tree.file(), tree.file())


def _leak(tree: Tree) -> None:
    shutil.copy(tree.file(), tree.validation_file())


def _resized_leak(tree: Tree) -> None:
    with Image.open(tree.file()) as image:
        size = (image.width * 4 // 5, image.height * 4 // 5)
        image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
            tree.validation_file(), "JPEG", quality=80
        )


def _turned(tree: Tree) -> None:
    path = tree.file()
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.convert("RGB").save(path, "JPEG", exif=exif)


def _dark_sixteen_bits(tree: Tree) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (64, 64)).astype(np.uint16)
    Image.fromarray(values).save(tree.file(), "PNG")


def _caption(text: str) -> Callable[[Tree], None]:
    def plant(tree: Tree) -> None:
        tree.captions()[0]["caption"] = text

    return plant


def _constant(tree: Tree) -> None:
    for _ in range(6):
        tree.captions()[0]["caption"] = "no description"


def _identical(tree: Tree) -> None:
    captions = tree.captions()
    if len(captions) == 1:
        captions.append({**captions[0], "id": 10**9})
        tree.content["annotations"].append(captions[1])
    for each in captions:
        each["caption"] = captions[0]["caption"]


def _stray(tree: Tree) -> None:
    tree.content["images"].append({"id": 10**9, "file_name": "none.jpg"})


PLANTS: dict[str, tuple[str, Callable[[Tree], None]]] = {
    "missing": ("missing-images", _missing),
    "empty": ("missing-images", _empty),
    "truncated": ("unreadable-images", _truncated),
    "not an image": ("unreadable-images", _not_an_image),
    "placeholder": ("placeholder-images", _placeholder),
    "black": ("near-constant-images", _black),
    "tiny": ("small-images", _tiny),
    "strip": ("elongated-images", _strip),
    "duplicate": ("duplicate-images", _duplicate),
    "leak": ("leaked-images", _leak),
    "resized leak": ("leaked-near-duplicates", _resized_leak),
    "blank caption": ("unusable-items", _caption("  ")),
    "constant caption": ("repeated-captions", _constant),
    "identical captions": ("identical-captions", _identical),
    "damaged characters": ("damaged-characters", _caption("a cafÃ© by the street")),
    "replaced characters": ("damaged-characters", _caption("a caf\ufffd by the street")),
    "control characters": ("control-characters", _caption("a red\x01 circle")),
    "markup": ("markup", _caption("<b>a red circle</b>")),
    "address": ("markup", _caption("a red circle, see https://example.com/1")),
    "file name": ("file-names", _caption("IMG_1234.JPG")),
    "no letters": ("no-letters", _caption("12345.")),
    "other script": ("mixed-scripts", _caption("красный круг рядом с синим")),
    "other language": (
        "mixed-languages",
        _caption("ein roter Kreis und ein blauer Kreis auf der Wiese"),
    ),
    "image without caption": ("unusable-items", _stray),
}
"""A name, the kind of finding and what plants the defect."""

"""Images with a text file of the same name beside them: `a/b.jpg` and `a/b.txt`, a caption a line.

Other files are left alone, and hidden ones. Records are in order of their image ids.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from virtex.data.captioned_images import CaptionColumns, CaptionedImages, finding, path_id
from virtex.data.images import BadImage, OnBadImage
from virtex.data.packed import StringPacker
from virtex.data.picture_files import find_pictures
from virtex.errors import UserError

_PICTURES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
        *(".jp2", ".ppm", ".pgm", ".avif"),
    )
)
_TEXT = ".txt"


class TextFolder(CaptionedImages):
    """The records below a directory, in shared memory.

    Image ids are the names without extension where these are different whole numbers, else hashes
    of the paths. `report` says, a line each, what was left out: images without a text or with an
    empty one, texts without an image, directories that cannot be listed.
    """

    def __init__(self, root: Path, on_bad_image: OnBadImage = "error") -> None:
        """Read all texts.

        Raises UserError when a text cannot be read, belongs to two images, or there is no record;
        under `on_bad_image` "error" also when anything would be left out.
        """
        found = find_pictures([root])
        files = [path for path in found if isinstance(path, Path)]
        texts = {path.with_suffix("") for path in files if path.suffix == _TEXT and _is_named(path)}
        images = [path for path in files if path.suffix.lower() in _PICTURES and _is_named(path)]
        stems = _stems(images)
        captions = {path: _captions(path) for path in images if path.with_suffix("") in texts}
        kept = [path for path in images if captions.get(path)]
        left_out: dict[str, list[Path]] = {
            "images have no text": [path for path in images if path not in captions],
            "images have an empty text": [path for path in captions if not captions[path]],
            "texts have no image": [path.with_suffix(_TEXT) for path in sorted(texts - stems)],
        }
        self.report = tuple(
            finding(len(paths), what, [str(path.relative_to(root)) for path in paths[:5]])
            for what, paths in left_out.items()
            if paths
        ) + tuple(f"{bad.path}: {bad.reason}" for bad in found if isinstance(bad, BadImage))
        if not kept:
            raise UserError(
                f"{root} holds no image with a text beside it, such as a.jpg and a.txt"
                + "".join(f"; {line}" for line in self.report)
            )
        if self.report and on_bad_image == "error":
            raise UserError(f"{root}: {'; '.join(self.report)}. Mend these, or choose to skip them")
        super().__init__(root, _columns(root, {path: captions[path] for path in kept}))


def _is_named(path: Path) -> bool:
    """True; raises UserError for a name that cannot be kept as text."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the name of {str(path)!a} is not UTF-8; rename it") from error
    return True


def _stems(images: Sequence[Path]) -> set[Path]:
    """The images without extension; raises UserError for two that differ in it alone."""
    counts = Counter(path.with_suffix("") for path in images)
    repeated = [path for path in images if counts[path.with_suffix("")] > 1]
    if repeated:
        names = ", ".join(map(str, repeated[:5]))
        raise UserError(f"images of one directory must differ in more than the extension: {names}")
    return set(counts)


def _captions(image: Path) -> list[str]:
    path = image.with_suffix(_TEXT)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason}; convert it first") from error
    return [line for line in content.split("\n") if line.strip()]


def _columns(root: Path, captions: Mapping[Path, list[str]]) -> CaptionColumns:
    names, texts = StringPacker(), StringPacker()
    image_ids = _image_ids(root, list(captions))
    images = sorted(captions, key=image_ids.__getitem__)
    for image in images:
        names.append(image.relative_to(root).as_posix())
        for line in captions[image]:
            texts.append(line)
    ends = np.cumsum([0, *(len(captions[image]) for image in images)], dtype=np.int64)
    return CaptionColumns(
        image_ids=np.array([image_ids[image] for image in images], np.int64),
        names=names.packed(),
        places=np.arange(len(images), dtype=np.int64),
        captions=texts.packed(),
        order=np.arange(ends[-1], dtype=np.int64),
        ends=ends,
    )


def _image_ids(root: Path, images: list[Path]) -> dict[Path, int]:
    stems = [path.stem for path in images]
    if all(stem.isascii() and stem.isdigit() and len(stem) < 19 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(images):
            return dict(zip(images, numbers, strict=True))
    return {path: path_id(path.relative_to(root).as_posix()) for path in images}

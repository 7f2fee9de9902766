"""Images with a text file of the same name beside them: `a/b.jpg` and `a/b.txt`, a caption a line.

Other files are left alone, and hidden ones. Records are in order of their image ids.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from virtex.data.images import IMAGE_EXTENSIONS, BadImage, OnBadImage
from virtex.data.plain_text import CONVERT, NotTextError, decoded
from virtex.data.records import hashed_id
from virtex.data.shared_strings import StringPacker
from virtex.data.sources.find_images import find_images
from virtex.data.sources.image_list import CaptionColumns, CaptionedImages, finding
from virtex.errors import UserError, first_few
from virtex.files import reading

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
        found = find_images([root])
        files = [path for path in found if isinstance(path, Path)]
        texts = _by_stem([p for p in files if p.suffix.lower() == _TEXT and _is_named(p)], "texts")
        images = [path for path in files if _is_image(path) and _is_named(path)]
        stems = _by_stem(images, "images")
        captions = {path: _captions(texts[stem]) for stem, path in stems.items() if stem in texts}
        kept = [path for path in images if captions.get(path)]
        left_out: dict[str, list[Path]] = {
            "images have no text": [path for path in images if path not in captions],
            "images have an empty text": [path for path in captions if not captions[path]],
            "texts have no image": [texts[stem] for stem in sorted(texts.keys() - stems.keys())],
        }
        self.report = tuple(
            finding(what, [path.relative_to(root) for path in paths])
            for what, paths in left_out.items()
            if paths
        ) + tuple(f"{bad.path}: {bad.reason}" for bad in found if isinstance(bad, BadImage))
        if not kept:
            raise UserError(
                f"{root} holds no image with a text beside it, such as a.jpg and a.txt"
                + "".join(f"; {line}" for line in (*_seen(files), *self.report))
            )
        if self.report and on_bad_image == "error":
            raise UserError(
                f"{root}: {'; '.join(self.report)}. Correct these, or choose to skip them"
            )
        super().__init__(root, _columns(root, {path: captions[path] for path in kept}))


def _is_named(path: Path) -> bool:
    """True; raises UserError for a name that cannot be kept as text."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the name of {str(path)!a} is not UTF-8; rename it") from error
    return True


def _is_image(path: Path) -> bool:
    return path.suffix[1:].lower() in IMAGE_EXTENSIONS


def _by_stem(paths: Sequence[Path], what: str) -> dict[Path, Path]:
    """The paths by what they are without extension; raises UserError for two that are alike."""
    counts = Counter(path.with_suffix("") for path in paths)
    repeated = [path for path in paths if counts[path.with_suffix("")] > 1]
    if repeated:
        raise UserError(
            f"{what} of one directory must differ in more than the extension: {first_few(repeated)}"
        )
    return {path.with_suffix(""): path for path in paths}


def _seen(files: Sequence[Path]) -> tuple[str, ...]:
    """What a directory holds, if anything: `it holds 3 .heic, 2 .json`."""
    counts = Counter(path.suffix or "without extension" for path in files)
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.most_common(8))
    return (f"it holds {kinds}",) if kinds else ()


def _captions(path: Path) -> list[str]:
    try:
        with reading(path):
            content = decoded(path.read_bytes())
    except NotTextError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}; {CONVERT}") from error
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line for line in lines if line.strip()]


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
    return {path: hashed_id(path.relative_to(root).as_posix()) for path in images}

"""Images with a text file of the same name beside them: `a/b.jpg` and `a/b.txt`, a caption a line.

Hidden and other files are ignored. Records are in order of their image ids.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from virtex.data.images import IMAGE_EXTENSIONS, BadImage, OnBadImage
from virtex.data.plain_text import (
    ENCODING_REMEDY,
    UTF_8,
    NotTextError,
    decoded,
    encoding_name,
    has_text,
    without_mark,
)
from virtex.data.records import hashed_id
from virtex.data.shared_strings import StringPacker
from virtex.data.sources.find_images import find_images
from virtex.data.sources.image_list import CaptionedImages
from virtex.errors import UserError, first_few, report_lines
from virtex.files import reading


class TextFolder(CaptionedImages):
    """The records below a directory, in shared memory.

    Image ids are the names without extension if these are different whole numbers, else hashes of
    the paths. `report` has a line for each kind of file that was left out: images without a text or
    with an empty one, texts without an image, directories that cannot be listed.
    """

    def __init__(
        self, root: Path, on_bad_image: OnBadImage = "error", encoding: str = UTF_8
    ) -> None:
        """Read all texts, which are of this encoding.

        Raises UserError if a text cannot be read or belongs to two images, or if there is no
        record; under `on_bad_image` "error" also if anything would be left out.
        """
        found = find_images([root])
        files = [path for path in found if isinstance(path, Path)]
        texts = _by_stem("texts", [path for path in files if path.suffix.lower() == ".txt"])
        images = _by_stem("images", [path for path in files if _is_image(path)])
        captions = {
            image: _captions(texts[stem], encoding)
            for stem, image in images.items()
            if stem in texts
        }
        left_out = {
            "images have no text": [images[stem] for stem in images if stem not in texts],
            "images have an empty text": [image for image in captions if not captions[image]],
            "texts have no image": [texts[stem] for stem in sorted(texts.keys() - images.keys())],
        }
        self.report = report_lines(
            {what: [path.relative_to(root) for path in paths] for what, paths in left_out.items()}
        ) + tuple(f"{bad.path}: {bad.reason}" for bad in found if isinstance(bad, BadImage))
        if not any(captions.values()):
            raise UserError(
                f"{root} holds no image with a text beside it, such as a.jpg and a.txt"
                + "".join(f"; {line}" for line in (*_extensions(files), *self.report))
            )
        if self.report and on_bad_image == "error":
            raise UserError(
                f"{root}: {'; '.join(self.report)}. Correct these, or set DATA.ON_BAD_IMAGE"
                " to skip to train without them"
            )
        image_ids = _image_ids(root, [image for image in captions if captions[image]])
        ordered = sorted(image_ids, key=image_ids.__getitem__)
        names, packed = StringPacker(), StringPacker()
        for image in ordered:
            names.append(image.relative_to(root).as_posix())
            for line in captions[image]:
                packed.append(line)
        places = np.repeat(np.arange(len(ordered)), [len(captions[image]) for image in ordered])
        super().__init__(
            root,
            names.packed(),
            packed.packed(),
            usable=np.arange(len(packed)),
            image_ids=np.array([image_ids[image] for image in ordered], np.int64)[places],
            places=places,
        )


def _is_image(path: Path) -> bool:
    return path.suffix[1:].lower() in IMAGE_EXTENSIONS


def _by_stem(what: str, paths: Sequence[Path]) -> dict[Path, Path]:
    """The paths by path without extension.

    Raises UserError for two that differ only in the extension, and for a name that is not UTF-8.
    """
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"the name of {str(path)!a} is not UTF-8; rename it") from error
    counts = Counter(path.with_suffix("") for path in paths)
    repeated = [path for path in paths if counts[path.with_suffix("")] > 1]
    if repeated:
        raise UserError(
            f"{what} of one directory must differ in more than the extension: {first_few(repeated)}"
        )
    return {path.with_suffix(""): path for path in paths}


def _extensions(files: Sequence[Path]) -> tuple[str, ...]:
    """The most frequent extensions of any files: `it holds 3 .heic, 2 .json`."""
    counts = Counter(path.suffix or "without extension" for path in files)
    kinds = ", ".join(f"{number} {kind}" for kind, number in counts.most_common(8))
    return (f"it holds {kinds}",) if kinds else ()


def _captions(path: Path, encoding: str) -> list[str]:
    try:
        with reading(path):
            content = decoded(path.read_bytes(), without_mark(encoding))
    except NotTextError as error:
        name = encoding_name(encoding)
        raise UserError(f"{path} is not {name} text: {error}; {ENCODING_REMEDY}") from error
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line for line in lines if has_text(line)]


def _image_ids(root: Path, images: list[Path]) -> dict[Path, int]:
    stems = [path.stem for path in images]
    if all(stem.isascii() and stem.isdigit() and len(stem) < 19 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(images):
            return dict(zip(images, numbers, strict=True))
    return {path: hashed_id(path.relative_to(root).as_posix()) for path in images}

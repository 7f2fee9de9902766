"""The image files that a user's paths mean: files as they are, directories all the way down."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from virtex.data.images import BadImage
from virtex.errors import UserError


def find_images(paths: Sequence[Path]) -> list[Path | BadImage]:
    """Every file that `paths` name or hold, each once, in the order of `paths`.

    What lies in a directory is sorted by name; hidden files and directories are left out, links are
    followed. No file is opened. A directory that cannot be listed, and one of `paths` that holds no
    file, is a `BadImage` in its place.

    Raises `UserError` for a path that does not exist.
    """
    for path in paths:
        try:
            path.stat()
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}; name image files, or directories that hold them"
            ) from error
    found = (image for path in paths for image in _images_of(path))
    return list({path_of(image): image for image in found}.values())


def path_of(image: Path | BadImage) -> Path:
    """The path of what `find_images` gives."""
    return image.path if isinstance(image, BadImage) else image


def _images_of(path: Path) -> Iterator[Path | BadImage]:
    if not path.is_dir():
        yield path
        return
    empty = True
    for image in _below(path, frozenset({path.resolve()})):
        empty = False
        yield image
    if empty:
        yield BadImage(path, "the directory holds no files, or hidden ones alone")


def _below(directory: Path, above: frozenset[Path]) -> Iterator[Path | BadImage]:
    """What a directory holds, without the directories `above` to which a link leads back."""
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        yield BadImage(directory, error.strerror or str(error))
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            mode = entry.stat().st_mode
        except OSError:  # such as a link to nothing: whoever reads it learns why
            yield entry
            continue
        if stat.S_ISREG(mode):
            yield entry
        elif stat.S_ISDIR(mode) and (real := entry.resolve()) not in above:
            yield from _below(entry, above | {real})

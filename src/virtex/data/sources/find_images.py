"""The image files that a user's paths name: files, and directories searched recursively."""

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from virtex.data.images import BadImage
from virtex.errors import UserError


def find_images(paths: Sequence[Path]) -> list[Path | BadImage]:
    """Every file that `paths` name or contain, each once, in the order of `paths`.

    The content of a directory is sorted by name; hidden files and directories are ignored, links
    are followed. No file is opened. A directory that cannot be listed, and one of `paths` that
    contains no file, is a `BadImage` in its place.

    Raises `UserError` for a path that does not exist.
    """
    for path in paths:
        try:
            path.stat()
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}; name image files, or directories that hold them"
            ) from error
    found: dict[Path, Path | BadImage] = {}
    for path in paths:
        if path.is_dir():
            images = list(_below(path, frozenset({path.resolve()})))
            empty = BadImage(path, "the directory holds no files, or only hidden ones")
            found |= {path_of(image): image for image in images or [empty]}
        else:
            found[path] = path
    return list(found.values())


def path_of(image: Path | BadImage) -> Path:
    """The path of a result of `find_images`."""
    return image.path if isinstance(image, BadImage) else image


def _below(directory: Path, above: frozenset[Path]) -> Iterator[Path | BadImage]:
    """The files below a directory, without the directories `above` that a link leads back to."""
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
        except OSError:  # such as a broken link: reading it gives the reason
            yield entry
            continue
        if stat.S_ISREG(mode):
            yield entry
        elif stat.S_ISDIR(mode) and (real := entry.resolve()) not in above:
            yield from _below(entry, above | {real})

"""Writing a directory as a whole: beside its place first, then renamed into it.

The file LISTING in it names all that was written, by which a later run knows it for its own.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from virtex.errors import UserError
from virtex.synthetic.trees import write_json

LISTING = "scenes.json"


@contextmanager
def published(output: Path, overwrite: bool, options: Mapping[str, object]) -> Iterator[Path]:
    """A new directory to write into; it becomes `output` when the block ends well.

    If the block is interrupted `output` stays as it was. A directory that holds anything is only
    replaced with `overwrite`, and if every file in it was listed by the run that made it. `options`
    are kept in the listing. Raises UserError, before the block, for a place that cannot be taken.
    """
    output = output.resolve()
    _check_place(output, overwrite)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        write_json(partial / LISTING, {"options": options, "files": sorted(_files(partial))})
        _check_place(output, overwrite)  # drawing takes a while
        _move(partial, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _files(root: Path) -> set[str]:
    """Everything in a directory but directories, as relative paths."""
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(root).as_posix() for path in found}


def _check_place(output: Path, overwrite: bool) -> None:
    if output.is_dir():
        if not any(output.iterdir()):
            return
        if not overwrite:
            raise UserError(
                f"the directory {output} is not empty; choose another one, or add --overwrite to "
                "replace scenes that an earlier run wrote there"
            )
        _check_own(output)
    elif output.exists():
        raise UserError(f"{output} is not a directory; choose another place")


def _check_own(output: Path) -> None:
    strangers = sorted(_files(output) - _listed(output) - {LISTING})
    if strangers:
        raise UserError(
            f"{output} cannot be replaced: {len(strangers)} file(s) in it, such as {strangers[0]}, "
            "were not written by this command; move them away or choose another directory"
        )


def _listed(output: Path) -> set[str]:
    """What an earlier run wrote there; nothing if its listing is missing or damaged."""
    try:
        return set(json.loads((output / LISTING).read_text(encoding="ascii"))["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return set()


def _move(partial: Path, output: Path) -> None:
    """Killed between the two renames it leaves the former tree beside the place, whole."""
    if not output.exists():
        partial.rename(output)
        return
    former = partial.with_suffix(".former")
    output.rename(former)
    partial.rename(output)
    shutil.rmtree(former)

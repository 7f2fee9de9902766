"""Directories that are written atomically: under a temporary name first, then renamed.

The file LISTING names everything that was written, so that a later run recognises the output.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from virtex.errors import UserError
from virtex.files import writing
from virtex.synthetic.trees import write_json

LISTING = "scenes.json"


@contextmanager
def atomic_directory(
    output: Path, overwrite: bool, options: Mapping[str, object]
) -> Iterator[Path]:
    """A new directory to write to, which is renamed to `output` when the block succeeds.

    If the block fails, `output` is unchanged. A directory that is not empty is replaced only with
    `overwrite`, and only if every file in it was listed by the run that wrote it. `options` are
    stored in the listing. Raises UserError before the block if `output` cannot be written.
    """
    output = output.resolve()
    _check_output(output, overwrite)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    try:
        with writing(output):
            partial.mkdir(parents=True)
            yield partial
            write_json(partial / LISTING, {"options": options, "files": sorted(_files(partial))})
            _check_output(output, overwrite)  # it may have changed during drawing
            _move(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _files(root: Path) -> set[str]:
    """The relative paths of everything but directories below a directory."""
    found = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(root).as_posix() for path in found}


def _check_output(output: Path, overwrite: bool) -> None:
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
        raise UserError(f"{output} is not a directory; choose another path")


def _check_own(output: Path) -> None:
    try:
        listed = set(json.loads((output / LISTING).read_text(encoding="ascii"))["files"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # it is missing or damaged
        listed = set()
    strangers = sorted(_files(output) - listed - {LISTING})
    if strangers:
        raise UserError(
            f"{output} cannot be replaced: {len(strangers)} file(s) in it, such as {strangers[0]}, "
            "were not written by this command; move them away or choose another directory"
        )


def _move(partial: Path, output: Path) -> None:
    """Rename `partial` to `output`; a kill between two renames leaves the former tree intact."""
    if not output.exists():
        partial.rename(output)
        return
    former = partial.with_suffix(".former")
    output.rename(former)
    partial.rename(output)
    shutil.rmtree(former)

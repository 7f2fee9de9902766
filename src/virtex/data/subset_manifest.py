"""Which images a run trains on, as a file that another run can be given.

`subset.json` is one JSON object: `format`, 1; `seed` and `percentage`, which chose the images, null
where a file gave them; `images`, how many, and `of` how many; `sha256` of the ids in decimal,
ascending, joined by newlines; `ids`, ascending. A list made by hand needs `ids` alone, in any
order.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from virtex.data.records import Records
from virtex.data.subset import Selection, subset
from virtex.errors import UserError
from virtex.files import whole_file

SUBSET = "subset.json"
"""The manifest's name in the directory of a run."""

_FORMAT = 1
_KEYS = ("format", "seed", "percentage", "images", "of", "sha256", "ids")
_NAMED = 5  # ids in a message
_MOST_BYTES = 64 << 20  # five million ids
_LEAST = 'expected the subset.json of a run, or at least {"ids": [1, 2, 3]}'


@dataclass(frozen=True)
class SubsetManifest:
    """Image ids, ascending and all different, and how they were chosen out of `of` images.

    `of` is None in a list made by hand, `seed` and `percentage` where a file gave the ids.
    """

    ids: tuple[int, ...]
    of: int | None = None
    seed: int | None = None
    percentage: float | None = None

    @property
    def sha256(self) -> str:
        """The digest of the ids in decimal, joined by newlines; equal for equal subsets."""
        return hashlib.sha256("\n".join(map(str, self.ids)).encode()).hexdigest()


def training_subset(
    records: Records, *, percentage: float, seed: int, manifest: Path | None
) -> tuple[Records, SubsetManifest | None]:
    """The images to train on and their manifest, which is None for all of them.

    They are those that the file `manifest` lists, or else `percentage` percent of `records`.
    Raises UserError as `subset`, `read` and `select` do.
    """
    if manifest is not None:
        given = read(manifest)
        return select(records, given, manifest), SubsetManifest(given.ids, len(records))
    chosen = subset(records, percentage, seed)
    if chosen is records:
        return records, None
    ids = tuple(sorted(chosen.image_ids.tolist()))
    return chosen, SubsetManifest(ids, len(records), seed, percentage)


def select(records: Records, manifest: SubsetManifest, path: Path) -> Records:
    """The records of the manifest's ids, in the order of `records`.

    Raises UserError, which names the manifest's `path`, for ids that `records` does not have.
    """
    wanted = np.array(manifest.ids, np.int64)
    image_ids = records.image_ids
    missing = wanted[~np.isin(wanted, image_ids)]
    if len(missing):
        raise UserError(
            f"{path} lists {len(wanted)} images, and {len(missing)} of them are not among the "
            f"{len(image_ids)} training images of DATA.ROOT ({_named(missing)}); set DATA.ROOT to "
            "the data that it was made from, or remove these ids and 'sha256' from it"
        )
    return Selection(records, np.flatnonzero(np.isin(image_ids, wanted)))


def keep(path: Path, manifest: SubsetManifest | None) -> None:
    """Let the file at `path` say what a run trains on: write it, or remove an old one for None."""
    if manifest is None:
        path.unlink(missing_ok=True)
    else:
        write(path, manifest)


def change(path: Path, manifest: SubsetManifest | None) -> str | None:
    """How a run that continues would train on other images than the file at `path` lists, in words.

    None where it would not, or where there is no such file. Another seed or percentage is asked
    for by the settings; the same ones with other images mean that the data have changed.
    """
    if manifest is None or not path.exists():
        return None
    before = read(path)
    asked_for = (before.seed, before.percentage) != (manifest.seed, manifest.percentage)
    if asked_for or before.ids == manifest.ids:
        return None
    gone = np.setdiff1d(before.ids, manifest.ids)
    new = np.setdiff1d(manifest.ids, before.ids)
    differences = [
        f"{len(ids)} {what} ({_named(ids)})"
        for what, ids in (("left out", gone), ("new", new))
        if len(ids)
    ]
    return (
        f"subset: this run trained on the {len(before.ids)} images of {path}, and now would on "
        f"{len(manifest.ids)} of {manifest.of}: {', '.join(differences)}"
    )


def write(path: Path, manifest: SubsetManifest) -> None:
    """Write `subset.json`: a reader finds the whole file, or the one before it."""
    content = {
        "format": _FORMAT,
        "seed": manifest.seed,
        "percentage": manifest.percentage,
        "images": len(manifest.ids),
        "of": manifest.of,
        "sha256": manifest.sha256,
        "ids": manifest.ids,
    }
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def read(path: Path) -> SubsetManifest:
    """The manifest in a file.

    Raises UserError, with the path and the remedy, where it is missing, malformed, empty, or not
    what was written: `sha256` and `images` are checked if they are there.
    """
    content = _content(path)
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise UserError(
            f"{path} has the unknown key {reprlib.repr(unknown[0])}; the keys are "
            f"{', '.join(_KEYS)}"
        )
    if content.get("format", _FORMAT) != _FORMAT:
        raise UserError(
            f"{path} is of format {reprlib.repr(content['format'])}; this version of "
            f"virtex reads {_FORMAT}"
        )
    manifest = SubsetManifest(
        ids=_ids(path, content),
        of=_whole_number(path, content, "of"),
        seed=_whole_number(path, content, "seed"),
        percentage=_percentage(path, content),
    )
    images = _whole_number(path, content, "images")
    changed = images is not None and images != len(manifest.ids)
    if changed or content.get("sha256") not in (None, manifest.sha256):
        raise UserError(
            f"the {len(manifest.ids)} ids of {path} are not those that were written: 'sha256' or "
            "'images' does not fit them. Take the file from its run again or, if the ids are as "
            "you mean them, remove these two keys"
        )
    return manifest


def _content(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES >> 20} MB")
        content = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"there is no subset manifest {path}; check DATA.SUBSET_MANIFEST") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a directory; name a file such as {path / SUBSET}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); {_LEAST}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; {_LEAST}")
    return content


def _ids(path: Path, content: Mapping[str, Any]) -> tuple[int, ...]:
    ids = content.get("ids")
    if not isinstance(ids, list):
        raise UserError(f"{path} has no list 'ids'; {_LEAST}")
    if not ids:
        raise UserError(f"{path} lists no image; expected at least one in 'ids'")
    for image_id in ids:
        if type(image_id) is not int or not -(2**63) <= image_id < 2**63:
            raise UserError(
                f"{path}: an item of 'ids' is {reprlib.repr(image_id)}; expected image ids, whole "
                "numbers of 64 bits without quotes"
            )
    unique, counts = np.unique(np.array(ids, np.int64), return_counts=True)
    repeated = unique[counts > 1]
    if len(repeated):
        raise UserError(
            f"{path} lists {len(repeated)} images more than once ({_named(repeated)}); keep one of "
            "each"
        )
    return tuple(unique.tolist())


def _whole_number(path: Path, content: Mapping[str, Any], key: str) -> int | None:
    value = content.get(key)
    if value is not None and (type(value) is not int or value < 0):
        raise UserError(
            f"{path}: {key!r} is {reprlib.repr(value)}; expected a whole number or null"
        )
    return value


def _percentage(path: Path, content: Mapping[str, Any]) -> float | None:
    value = content.get("percentage")
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value <= 100:
        raise UserError(
            f"{path}: 'percentage' is {reprlib.repr(value)}; expected a number above 0 and at "
            "most 100, or null"
        )
    return float(value)


def _named(ids: npt.NDArray[np.int64]) -> str:
    """The first ids: `image ids 7, 9, 31`."""
    shown = ", ".join(map(str, ids[:_NAMED].tolist()))
    return f"image ids {shown}{', …' if len(ids) > _NAMED else ''}"

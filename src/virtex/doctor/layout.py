"""The layout of a data set that nobody described: its format, and the settings that read it.

Only names and the beginnings of files are looked at, and nothing is written.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from virtex.data.plain_text import UTF_8
from virtex.data.shards.manifest import MANIFEST
from virtex.data.shards.shard_names import name_splits
from virtex.doctor.detected import ABSOLUTE, Choice, DetectedData, counted
from virtex.doctor.directory import DataDirectory
from virtex.doctor.encodings import find_encoding
from virtex.doctor.shard_sample import shard_choices
from virtex.doctor.tables import find_table_data, table_data
from virtex.doctor.validation import share_choice
from virtex.errors import UserError, first_few
from virtex.files import check_local

_READ = (
    "a table of images and captions (.csv, .tsv, .jsonl or .parquet), images with a text file of"
    " the same name beside each, COCO's annotations/, or tar shards"
)
_LIKE_VALIDATION = ("valid", "validation", "dev")
_TEXTS = 200
"""The most text files that are read to find their encoding."""

_Detect = Callable[[DataDirectory, Mapping[str, object]], DetectedData]


def detect_data(path: str, given: Mapping[str, object]) -> DetectedData:
    """Find out how the data in a directory or a table can be read.

    `given` are settings of the user by key, such as `DATA.SEPARATOR`, which are taken as they are;
    with `DATA.FORMAT` among them, only that format is looked for. The choices include
    `DATA.VAL_SHARE` if there is no validation split. Raises UserError if there are no captions,
    or several data sets to choose from.
    """
    check_local(path)
    root = Path(os.path.normpath(Path(path).expanduser().absolute()))
    if not root.exists():
        raise UserError(
            f"{path} does not exist; name a directory or a table with images and captions"
        )
    if root.is_file():
        return table_data(root, given).with_given(given)
    directory = DataDirectory(root)
    detected = _detect_format(directory, given)
    notes = (*detected.notes, *_unused_validation(directory, detected))
    return replace(detected, notes=notes).with_given(given)


def _detect_format(directory: DataDirectory, given: Mapping[str, object]) -> DetectedData:
    wanted = given.get("DATA.FORMAT")
    found = {
        name: detect
        for name, (holds, detect) in _FORMATS.items()
        if (wanted is None and holds(directory)) or wanted == name
    }
    if not found:
        raise UserError(_nothing(directory))
    if len(found) > 1:
        raise UserError(
            f"{directory.path} holds data in several formats, {' and '.join(found)}; give --format"
            " with the one to use"
        )
    return next(iter(found.values()))(directory, given)


def _unused_validation(directory: DataDirectory, detected: DetectedData) -> Iterator[str]:
    """A note on what looks like a validation split and does not have its name."""
    if "DATA.VAL_SHARE" not in detected.settings:
        return
    for path in directory.entries:
        if path.stem.lower() in _LIKE_VALIDATION:
            yield (
                f"{path.name} looks like a validation split, and is not used: a part of the"
                f" training images is drawn. To use it, call it val{path.suffix}."
            )


def _has_coco(directory: DataDirectory) -> bool:
    annotations = directory.path / "annotations"
    return (annotations / "captions_train2017.json").is_file()


def _coco(
    directory: DataDirectory,
    given: Mapping[str, object],  # noqa: ARG001 - of all formats
) -> DetectedData:
    has_validation = any(directory.path.glob("annotations/*_val2017.json"))
    images = directory.directory("train2017")
    return DetectedData(
        (
            Choice("DATA.FORMAT", "coco", "there is annotations/captions_train2017.json"),
            Choice("DATA.ROOT", str(directory.path), ABSOLUTE),
            *_share(len(images.entries) if images else None, has_validation=has_validation),
        )
    )


def _table(directory: DataDirectory, given: Mapping[str, object]) -> DetectedData:
    tables = directory.tables
    if not tables:
        raise UserError(f"{directory.path} holds no table; {_nothing(directory)}")
    return find_table_data(tables, given)


def _split(directory: DataDirectory) -> tuple[DataDirectory, bool]:
    """The directory of training data, and whether there is one for validation beside it."""
    train = directory.directory("train")
    return train or directory, train is not None and directory.directory("val") is not None


def _has_shards(directory: DataDirectory) -> bool:
    return bool(_split(directory)[0].shards)


def _shards(directory: DataDirectory, given: Mapping[str, object]) -> DetectedData:
    training, has_validation = _split(directory)
    names = training.shards
    if not names:
        raise UserError(f"{training.path} holds no tar shards; {_nothing(directory)}")
    has_validation = has_validation or (
        training is directory and name_splits(names) == {"train", "val"}
    )
    written = ", which virtex packed" if (training.path / MANIFEST).exists() else ""
    return DetectedData(
        (
            Choice("DATA.FORMAT", "shards", f"{counted(len(names), 'tar file')}{written}"),
            Choice("DATA.ROOT", str(directory.path), ABSOLUTE),
            *shard_choices(training.path, names[0], given),
            *_share(None, has_validation=has_validation),
        )
    )


def _has_texts(directory: DataDirectory) -> bool:
    return bool(_split(directory)[0].described_images)


def _folder(directory: DataDirectory, given: Mapping[str, object]) -> DetectedData:
    training, has_validation = _split(directory)
    described = training.described_images
    if not described:
        raise UserError(f"{training.path} holds no images with text files; {_nothing(directory)}")
    encoding, notes = list[Choice](), list[str]()
    if "DATA.ENCODING" not in given:
        encoding, notes = _text_encoding([path.with_suffix(".txt") for path in described])
    choices = [
        Choice(
            "DATA.FORMAT",
            "folder",
            f"{counted(len(described), 'image')} with a text file beside each",
        ),
        Choice("DATA.ROOT", str(directory.path), ABSOLUTE),
        *encoding,
        *_share(len(described), has_validation=has_validation),
    ]
    undescribed = len(training.images) - len(described)
    if undescribed:
        notes.append(f"{counted(undescribed, 'image')} without a text file are not used.")
    return DetectedData(tuple(choices), tuple(notes))


def _text_encoding(texts: list[Path]) -> tuple[list[Choice], list[str]]:
    """The encoding of text files, if it is not UTF-8, with a note if it is guessed."""
    some = [path for path in texts[:: max(1, len(texts) // _TEXTS)] if path.is_file()]
    found = [find_encoding(path) for path in some]
    others = [encoding for encoding in found if encoding.name != UTF_8]
    if not others:
        return [], []
    names = [encoding.name for encoding in others]
    name = max(names, key=names.count)
    example = next(each for each in others if each.name == name).example
    if example is None:
        return [Choice("DATA.ENCODING", name, "by the marks of the text files")], []
    note = (
        f"The text files are not UTF-8. They are read as {name}, which is a guess: check that"
        f" {example!r} is right, or give --encoding."
    )
    return [Choice("DATA.ENCODING", name, f"a guess; it reads {example!r}")], [note]


def _share(images: int | None, *, has_validation: bool) -> list[Choice]:
    return [] if has_validation else [share_choice(images)]


_FORMATS: dict[str, tuple[Callable[[DataDirectory], bool], _Detect]] = {
    "coco": (_has_coco, _coco),
    "table": (lambda directory: bool(directory.tables), _table),
    "shards": (_has_shards, _shards),
    "folder": (_has_texts, _folder),
}


def _nothing(directory: DataDirectory) -> str:
    """The message for a directory without captions."""
    held = directory.extensions
    if not held:
        return f"{directory.path} is empty; expected {_READ}"
    message = (
        f"{directory.path} has no captions that are recognised. It holds {held}; expected {_READ}."
    )
    classes = [each.path.name for each in directory.directories if each.images]
    if len(classes) > 1 and not (set(classes) & {"train", "val"}):
        message += (
            f" The images are in directories that look like classes ({first_few(classes)});"
            " training needs sentences, and `virtex evaluate` reads labels."
        )
    kinds = {path.suffix.lower() for path in directory.files}
    if kinds & {".xlsx", ".xls", ".ods"}:
        message += " Save the spreadsheet as CSV."
    texts = [path.name for path in directory.entries if path.suffix.lower() == ".txt"]
    if texts:
        message += f" If {texts[0]} is a table, give it the extension .csv."
    if (directory.path / "annotations").is_dir():
        message += " COCO's annotations must be called captions_train2017.json."
    if ".json" in kinds:
        message += " Write JSON as .jsonl, an object with the image and its caption in each line."
    return message

"""Predicted and reference captions from the files in which people keep them.

An image is known by its id, or by the path of its file where a file has no ids, as that of `virtex
caption`. Ids are texts here: `42` of a number and of a text is the same.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from virtex.data.plain_text import CONVERT, NotTextError, decoded, text_lines
from virtex.errors import UserError, first_few
from virtex.files import reading

_KINDS = (".json", ".jsonl", ".csv", ".tsv")
_ID = "image_id"
_PATHS = ("path", "image", "filepath", "file_name")
_CAPTIONS = ("caption", "captions", "title", "text")


@dataclass
class References:
    """The reference captions of each image, and the ids of images by the names of their files."""

    path: Path
    captions: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str | None] = field(default_factory=dict)
    """None for a name that several images have in different directories."""

    def add_name(self, name: str, image_id: str) -> None:
        for known in {name, PurePath(name).name}:
            same = self.names.setdefault(known, image_id) == image_id
            self.names[known] = image_id if same else None

    def find(self, image: str, *, is_path: bool) -> str:
        """The id of an image that a prediction names; the name itself if there is none."""
        if not is_path:
            return image
        found = self.names.get(image) or self.names.get(PurePath(image).name)
        if found is None and (digits := re.search(r"[0-9]+$", PurePath(image).stem)):
            number = str(int(digits[0]))
            found = number if number in self.captions else None
        return image if found is None else found


def read_references(path: Path) -> References:
    """The references in COCO's captions JSON, JSON lines, or a table (.csv, .tsv).

    Raises UserError when the file cannot be read or is malformed.
    """
    references = References(path)
    for place, row in _rows(path):
        if _is_listed_image(row):
            references.add_name(str(row["file_name"]), _image(place, {_ID: row["id"]})[0])
            continue
        image, is_path = _image(place, row)
        if is_path:
            references.add_name(image, image)
        references.captions.setdefault(image, []).extend(_captions(place, row))
    if not references.captions:
        raise UserError(f"{path} holds no captions")
    return references


def read_predictions(path: Path, references: References) -> dict[str, str]:
    """One caption per image, by the ids of `references`, in the file's order.

    The file is a COCO results JSON, JSON lines, a table (.csv, .tsv), or any output of `virtex
    caption`. The first of several captions in a list is taken; images with an error are left out.

    Raises UserError when the file cannot be read or is malformed, or an image has two predictions.
    """
    predictions: dict[str, str] = {}
    repeated = []
    for place, row in _rows(path):
        if row.get("error") or _is_listed_image(row):
            continue
        image, is_path = _image(place, row)
        image_id = references.find(image, is_path=is_path)
        if image_id in predictions:
            repeated.append(image_id)
        predictions.setdefault(image_id, next(iter(_captions(place, row)), ""))
    if repeated:
        raise UserError(
            f"{path} holds several predictions for images {first_few(repeated)}; keep one for each"
            " (`virtex caption --top 1` writes one)"
        )
    if not predictions:
        raise UserError(f"{path} holds no captions")
    return predictions


def match_images(
    path: Path, predictions: Mapping[str, str], references: References, *, subset: bool
) -> dict[str, list[str]]:
    """The references of the predicted images; `path` is the file of the predictions.

    Raises UserError, with examples, for a prediction without references and, unless `subset`, for
    references without a prediction.
    """
    unknown = [image for image in predictions if image not in references.captions]
    if unknown:
        raise UserError(
            f"{path}: {len(unknown)} of {len(predictions)} predictions are of images that"
            f" {references.path} does not have (images {first_few(unknown)}; it has images"
            f" such as {first_few(list(references.captions), 3)})"
        )
    missing = [image for image in references.captions if image not in predictions]
    if missing and not subset:
        raise UserError(
            f"{path}: no prediction for {len(missing)} of {len(references.captions)}"
            f" images of {references.path} (images {first_few(missing)}); add them, or give"
            " --subset to score the predicted images alone"
        )
    return {image: references.captions[image] for image in predictions}


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a file, each with what to call it in a message."""
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise UserError(f"{path}: the name must end in {', '.join(_KINDS)}, for its format")
    with reading(path):
        match kind:
            case ".json":
                yield from _json(path)
            case ".jsonl":
                for number, line in text_lines(path):
                    if line.strip():
                        place = f"{path}, line {number}"
                        yield place, _object(place, _parsed(place, line))
            case _:
                yield from _table(path)


def _json(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The items of a list, or those of `images` and `annotations` of COCO's captions."""
    try:
        content = _parsed(str(path), decoded(path.read_bytes()))
    except NotTextError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}; {CONVERT}") from error
    lists = {"": content}
    if isinstance(content, dict):
        if "annotations" not in content:
            raise UserError(
                f"{path}: expected a list of captions, or COCO's captions with 'annotations'; it is"
                f" an object with {first_few(list(map(repr, content))) or 'nothing in it'}"
            )
        lists = {name: content.get(name, []) for name in ("images", "annotations")}
    for name, items in lists.items():
        if not isinstance(items, list):
            raise UserError(f"{path}: expected a list{name and f' {name!r}'}, not {items!r:.80}")
        for number, item in enumerate(items, 1):
            place = f"{path}, {name or 'list'} item {number}"
            yield place, _object(place, item)


def _table(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    # Here, as it loads the decoders of images.
    from virtex.data.sources.separated_rows import separated_rows

    rows = separated_rows(path)
    _, names = next(rows, (0, []))
    for number, values in rows:
        place = f"{path}, line {number}"
        if values and len(values) != len(names):
            raise UserError(
                f"{place}: the row has {len(values)} values for {len(names)} columns; put values"
                " that hold a separator in double quotes"
            )
        if values:
            yield place, dict(zip(names, values, strict=True))


def _parsed(place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not well-formed JSON: {error}") from error


def _object(place: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(
            f"{place}: expected an object with the image and its caption, not {value!r:.80}"
        )
    return value


def _is_listed_image(row: Mapping[str, Any]) -> bool:
    """Whether a row is of the list `images` of COCO's captions."""
    return "file_name" in row and "id" in row and not any(name in row for name in _CAPTIONS)


def _image(place: str, row: Mapping[str, Any]) -> tuple[str, bool]:
    """The image of a row, and whether it is the path of a file."""
    name = next((name for name in (_ID, *_PATHS) if name in row), None)
    if name is None:
        raise UserError(f"{place} has no '{_ID}' (or {', '.join(_PATHS)}), only {_keys(row)}")
    value = row[name]
    if type(value) is int:
        return str(value), False
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: '{name}' must be a whole number or text, not {value!r:.80}")
    if name == _ID:
        is_number = value.isascii() and value.isdigit()
        return (str(int(value)) if is_number else value), False
    return value, True


def _captions(place: str, row: Mapping[str, Any]) -> list[str]:
    name = next((name for name in _CAPTIONS if name in row), None)
    if name is None:
        raise UserError(f"{place} has no '{_CAPTIONS[0]}', only {_keys(row)}")
    values = row[name] if isinstance(row[name], list) else [row[name]]
    # `virtex caption` writes objects with text and score.
    found = [value.get("text") if isinstance(value, dict) else value for value in values]
    texts = [text for text in found if isinstance(text, str)]
    if len(texts) < len(values):
        raise UserError(f"{place}: '{name}' must be text or a list of texts, not {row[name]!r:.80}")
    return texts


def _keys(row: Mapping[str, Any]) -> str:
    return first_few(list(map(repr, row))) or "nothing"

"""The text of an image in a shard: `KEY.json`, or `KEY.txt` with a caption a line."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from virtex.data.plain_text import (
    UTF_8,
    NotTextError,
    decoded,
    has_text,
    undecodable,
    without_mark,
)
from virtex.data.records import is_int64

Kind = Literal["json", "txt"]


@dataclass(frozen=True)
class TextFormat:
    """How the texts of shards are written.

    `caption_key` is the key of the caption or captions in JSON; None stands for `captions` or
    `caption`. With a key, plain texts are not read. `encoding` is that of plain texts.
    """

    caption_key: str | None = None
    encoding: str = UTF_8

    @property
    def variant(self) -> str:
        """A name for the indexes of texts that are read in this way; empty by default."""
        if self == TextFormat():
            return ""
        content = json.dumps([self.caption_key, self.encoding]).encode()
        return hashlib.sha256(content).hexdigest()[:8]


DEFAULT_FORMAT = TextFormat()


class MalformedError(ValueError):
    """Bytes that are not JSON; the message is the reason."""


@dataclass(frozen=True)
class SampleText:
    """Captions that are not blank, indices of categories, and the image's id if there is one.

    `unusable` is the number of captions in JSON that are blank, null or not text; `keys` are those
    of JSON that has neither captions nor categories. `images` is the number of images of the text,
    of which `virtex pack` names those after the first KEY.1, KEY.2, and so on.
    """

    captions: tuple[str, ...] = ()
    categories: tuple[int, ...] | None = None
    image_id: int | None = None
    unusable: int = 0
    keys: tuple[str, ...] = ()
    images: int = 1

    @property
    def has_labels(self) -> bool:
        return bool(self.captions) or self.categories is not None


def parse(content: bytes, kind: Kind, form: TextFormat = DEFAULT_FORMAT) -> SampleText:
    """Parse a member's bytes.

    JSON should be an object with `captions` (strings) or `caption`, or the key of `form`, and with
    `categories` and `image_id` if `virtex pack` wrote it; other JSON gives nothing. Raises
    NotTextError, and MalformedError for what is not JSON.
    """
    if kind == "txt":
        if form.caption_key is not None:
            return SampleText()
        return SampleText(_captions(decoded(content, without_mark(form.encoding)).splitlines()))
    try:
        # Decoded strictly: json.loads would accept half of a surrogate pair.
        values = json.loads(content.decode(json.detect_encoding(content)))
    except UnicodeDecodeError as error:
        raise NotTextError(undecodable(error)) from error
    except (ValueError, RecursionError) as error:
        raise MalformedError(str(error)) from error
    if not isinstance(values, dict):
        return SampleText()
    if form.caption_key is None:
        found = values.get("captions", values.get("caption"))
    else:
        found = values.get(form.caption_key)
    captions = _captions(found if isinstance(found, list) else [found])
    categories = _categories(values.get("categories"))
    image_id = values.get("image_id")
    return SampleText(
        captions=captions,
        categories=categories,
        image_id=image_id if is_int64(image_id) else None,
        unusable=len(found) - len(captions) if isinstance(found, list) else 0,
        keys=() if captions or categories is not None else tuple(values),
        images=_image_count(values.get("images")),
    )


def key_id(key: str) -> int | None:
    """The value of a key that is a number of at most 18 digits, else None."""
    return int(key) if key.isascii() and key.isdigit() and len(key) <= 18 else None


def _captions(values: list[object] | list[str]) -> tuple[str, ...]:
    # JSON can hold half a surrogate pair, which UTF-8 cannot encode.
    texts = (value.encode(errors="replace").decode() for value in values if isinstance(value, str))
    return tuple(text for text in texts if has_text(text))


def _image_count(value: object) -> int:
    return value if is_int64(value) and value > 1 else 1


def _categories(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, list) or not all(is_int64(value) and value > 0 for value in values):
        return None
    return tuple(sorted(set(values)))

"""What a shard holds on an image: `KEY.json`, or `KEY.txt` with a caption a line."""

import json
from dataclasses import dataclass
from typing import Literal

from virtex.data.plain_text import NotTextError, decoded, undecodable
from virtex.data.records import is_int64

Kind = Literal["json", "txt"]


class MalformedError(ValueError):
    """Bytes that are no JSON; the message is the reason."""


@dataclass(frozen=True)
class SampleText:
    """Captions that are not blank, the categories' indices, and the image's id where there is one.

    `unusable` is how many of the captions in JSON are blank, null or no text at all; `keys` are
    those of JSON that has neither captions nor categories.
    """

    captions: tuple[str, ...] = ()
    categories: tuple[int, ...] | None = None
    image_id: int | None = None
    unusable: int = 0
    keys: tuple[str, ...] = ()

    @property
    def says_something(self) -> bool:
        return bool(self.captions) or self.categories is not None


def parse(content: bytes, kind: Kind) -> SampleText:
    """The text in a member's bytes.

    Of JSON that is an object with `captions` (strings) or `caption`, and with `categories` and
    `image_id` where we wrote it; others give nothing.

    Raises NotTextError, and MalformedError for what is no JSON.
    """
    if kind == "txt":
        return SampleText(_captions(decoded(content).splitlines()))
    try:
        # Strictly, where json.loads would let half of a surrogate pair pass.
        values = json.loads(content.decode(json.detect_encoding(content)))
    except UnicodeDecodeError as error:
        raise NotTextError(undecodable(error)) from error
    except (ValueError, RecursionError) as error:
        raise MalformedError(str(error)) from error
    if not isinstance(values, dict):
        return SampleText()
    given = values.get("captions", values.get("caption"))
    captions = _captions(given if isinstance(given, list) else [given])
    categories = _categories(values.get("categories"))
    image_id = values.get("image_id")
    return SampleText(
        captions=captions,
        categories=categories,
        image_id=image_id if is_int64(image_id) else None,
        unusable=len(given) - len(captions) if isinstance(given, list) else 0,
        keys=() if captions or categories is not None else tuple(values),
    )


def key_id(key: str) -> int | None:
    """The number that a key is, where it is one of at most 18 digits."""
    return int(key) if key.isascii() and key.isdigit() and len(key) <= 18 else None


def _captions(values: list[object] | list[str]) -> tuple[str, ...]:
    # JSON can hold half a surrogate pair, which UTF-8 has no place for.
    texts = (value.encode(errors="replace").decode() for value in values if isinstance(value, str))
    return tuple(text for text in texts if text.strip())


def _categories(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, list) or not all(is_int64(value) and value > 0 for value in values):
        return None
    return tuple(sorted(set(values)))

"""What a shard says of a picture: `KEY.json`, or `KEY.txt` with a caption a line."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from virtex.data.records import Record

Kind = Literal["json", "txt"]

_encode = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True)
class SampleText:
    """Captions that are not blank, the categories' indices, and the image's id where it is told."""

    captions: tuple[str, ...] = ()
    categories: tuple[int, ...] | None = None
    image_id: int | None = None

    @property
    def says_something(self) -> bool:
        return bool(self.captions) or self.categories is not None


def parse(content: bytes, kind: Kind) -> SampleText:
    """The text in a member's bytes; nothing where it is not of the form that is read.

    Of JSON that is an object with `captions` (strings) or `caption`, and with `categories` and
    `image_id` where we wrote it.
    """
    if kind == "txt":
        return SampleText(_captions(content.decode("utf-8-sig", errors="replace").splitlines()))
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return SampleText()
    if not isinstance(values, dict):
        return SampleText()
    captions = values.get("captions", values.get("caption"))
    image_id = values.get("image_id")
    return SampleText(
        captions=_captions(captions if isinstance(captions, list) else [captions]),
        categories=_categories(values.get("categories")),
        image_id=image_id if _is_id(image_id) else None,
    )


def written(record: Record, *, with_categories: bool) -> bytes:
    """The JSON of a record; equal for equal records."""
    categories = record.categories if with_categories else None
    return written_text(record.image_id, record.captions, categories)


def written_text(image_id: int, captions: Sequence[str], categories: Sequence[int] | None) -> bytes:
    """The JSON of a record's parts; None where it has no categories."""
    values: dict[str, object] = {"image_id": image_id, "captions": captions}
    if categories is not None:
        values["categories"] = categories
    return _encode(values).encode()


def hashed_id(*identity: object) -> int:
    """An image id for what has none: 63 bits of a hash."""
    digest = hashlib.blake2b("\0".join(map(str, identity)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def key_id(key: str) -> int | None:
    """The number that a key is, where it is one of at most 18 digits."""
    return int(key) if key.isascii() and key.isdigit() and len(key) <= 18 else None


def _captions(values: list[object] | list[str]) -> tuple[str, ...]:
    # JSON can hold half a surrogate pair, which UTF-8 has no place for.
    texts = (value.encode(errors="replace").decode() for value in values if isinstance(value, str))
    return tuple(text for text in texts if text.strip())


def _categories(values: object) -> tuple[int, ...] | None:
    if not isinstance(values, list) or not all(_is_id(value) and value > 0 for value in values):
        return None
    return tuple(sorted(set(values)))


def _is_id(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63

"""How the captions of tar shards are written, from the first members of one shard."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from virtex.data.shards.store import LocalStore
from virtex.data.shards.tar_members import TarStream, tar_members
from virtex.doctor.detected import Choice, quoted
from virtex.doctor.table_columns import text_length
from virtex.errors import UserError

_MEMBERS = 300
_KNOWN = ("captions", "caption")


def shard_choices(directory: Path, name: str, given: Mapping[str, object]) -> list[Choice]:
    """The key of the captions, where it is another one than the usual; raises UserError.

    A shard in which no sample has a caption is refused.
    """
    if "DATA.COLUMNS.CAPTION" in given:
        return []
    values: dict[str, list[Any]] = {}
    kinds: set[str] = set()
    for member in islice(tar_members(TarStream(LocalStore(str(directory)), name)), _MEMBERS):
        kind = member.name.rpartition(".")[2].lower()
        kinds.add(kind)
        if kind == "json":
            for key, value in _json(member.content).items():
                values.setdefault(key, []).append(value)
    if any(key in values for key in _KNOWN):
        return []
    lengths = {key: length for key in values if (length := text_length(values[key]))}
    if lengths:
        best = max(lengths, key=lengths.__getitem__)
        reason = f"the key of the longest texts in the .json members of {name}"
        return [Choice("DATA.COLUMNS.CAPTION", best, reason)]
    if "txt" in kinds:
        return []
    raise UserError(
        f"{directory / name} holds no captions: expected .txt or .json members beside the images,"
        f" but its members are .{', .'.join(sorted(kinds)) or ' none'}"
        + (f", with the keys {quoted(values)} in JSON" if values else "")
    )


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):  # refused when the shards are opened
        return {}
    return value if isinstance(value, dict) else {}

"""Weights under the names that releases of the published system gave them."""

import re
from collections.abc import Mapping
from typing import Any

ENCODERS = ("encoder.", "transformer.encoder.")
"""What has stood for `transformer.` in the names of both heads."""


def older_names(weights: Mapping[str, Any], encoder: str) -> dict[str, Any]:
    """The same weights as before release 1.4: `encoder` is one of `ENCODERS`, and one projection
    stands at the top for all heads."""
    older: dict[str, Any] = {}
    for name, value in weights.items():
        _, found, rest = name.partition("textual.visual_projection.")
        top = f"visual_projection.{rest}" if found else name
        older[re.sub(r"textual\.transformer\.", f"textual.{encoder}", top)] = value
    return older

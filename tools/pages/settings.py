"""Every setting with its default and description: the page `docs/settings.md`.

    python -m tools.pages.settings [--write]

Made from the models of `virtex.config`, as `configs/schema.json` is.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from virtex.config import loading
from virtex.config.schema import Config

PAGE = Path(__file__).resolve().parents[2] / "docs" / "settings.md"
_INTRODUCTION = """# Settings

Every setting of a YAML file, made from the code by `python -m tools.pages.settings --write`.
`virtex config NAME` prints those of a configuration, and `KEY VALUE` pairs after
`--config-override` change single ones.
"""


def page() -> str:
    """The page in Markdown."""
    schema = loading.json_schema(Config)
    lines = [_INTRODUCTION]
    for title, rows in _sections(schema, "", schema):
        lines += [
            f"## {title}",
            "",
            "| setting | default | what it is |",
            "|---|---|---|",
            *rows,
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _sections(
    node: dict[str, Any], prefix: str, schema: dict[str, Any]
) -> Iterator[tuple[str, list[str]]]:
    """The name of each section with the rows of its own settings."""
    rows, inner = [], []
    for key, value in node["properties"].items():
        if key == "_BASE_":
            continue
        if "$ref" in value:
            inner.append((key, schema["$defs"][value["$ref"].rpartition("/")[2]]))
            continue
        default = json.dumps(value.get("default"), ensure_ascii=False)
        text = value.get("description", "").replace("|", "\\|")
        rows.append(f"| `{prefix}{key}` | `{default}` | {text} |")
    if rows:
        yield prefix.rstrip(".") or "General", rows
    for key, section in inner:
        yield from _sections(section, f"{prefix}{key}.", schema)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the page instead of printing")
    if parser.parse_args().write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main()

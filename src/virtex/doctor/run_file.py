"""The YAML file of a run, with the reason for each setting as a comment above it."""

import textwrap
from collections.abc import Iterator, Sequence

from virtex.config import yaml12
from virtex.config.messages import BASE_KEY
from virtex.doctor.detected import Choice

_WIDTH = 100
_INDENT = "  "


def run_file(choices: Sequence[Choice], base: str, heading: str) -> str:
    """YAML that extends the configuration `base`; settings stay in order within their section."""
    lines = [*_comment(heading, ""), f"{BASE_KEY}: {base}"]
    settings = [(choice.key.split("."), choice) for choice in choices]
    return "\n".join([*lines, *_lines(settings, "")]) + "\n"


def _lines(settings: Sequence[tuple[list[str], Choice]], indent: str) -> Iterator[str]:
    """The lines of settings, each with what remains of its key."""
    for name in dict.fromkeys(path[0] for path, _ in settings):
        inside = [(path[1:], choice) for path, choice in settings if path[0] == name]
        if inside[0][0]:
            yield f"{indent}{name}:"
            yield from _lines(inside, indent + _INDENT)
            continue
        _, choice = inside[0]
        yield from _comment(choice.reason, indent)
        written = yaml12.write({name: choice.value}).rstrip("\n")
        yield from (f"{indent}{line}" for line in written.split("\n"))


def _comment(text: str, indent: str) -> list[str]:
    printable = "".join(c if c.isprintable() else " " for c in text)
    prefix = f"{indent}# "
    return textwrap.wrap(
        printable,
        _WIDTH,
        initial_indent=prefix,
        subsequent_indent=prefix,
        break_long_words=False,
        break_on_hyphens=False,
    )

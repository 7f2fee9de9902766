"""What a look at a user's data tells about the settings that describe them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from virtex.config.data import Data
from virtex.config.loading import load_layers
from virtex.config.schema import Config

GIVEN = "as given on the command line"
ABSOLUTE = "an absolute path, so that the file can be used from any directory"


class Choice(NamedTuple):
    """A setting by its whole key, such as `DATA.SEPARATOR`, its value in YAML, and the reason."""

    key: str
    value: object
    reason: str


@dataclass(frozen=True)
class DetectedData:
    """The settings by which a data set can be read, and what was seen of it.

    `choices` are in the order in which they are written; `notes` are whole sentences on what was
    guessed, and on what the user should check.
    """

    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, object]:
        """The values by key."""
        return {choice.key: choice.value for choice in self.choices}

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons by key."""
        return {choice.key: choice.reason for choice in self.choices}

    def with_given(self, given: Mapping[str, object]) -> "DetectedData":
        """The same with the settings that the user gives, which come before what was found."""
        found = [
            Choice(each.key, given[each.key], GIVEN) if each.key in given else each
            for each in self.choices
        ]
        others = [Choice(key, given[key], GIVEN) for key in given.keys() - self.settings.keys()]
        return DetectedData((*found, *sorted(others)), self.notes)

    def data(self) -> Data:
        """The section `DATA` with these choices; raises UserError."""
        layers = [("found in the data", nested(self.settings))]
        return load_layers(Config, layers, "the data").data


def nested(settings: Mapping[str, object]) -> dict[str, Any]:
    """Settings by section, from dotted keys."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return values


def counted(number: int, thing: str) -> str:
    """A number with its noun: `1 image`, `2,000 images`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def quoted(names: Iterable[str]) -> str:
    """Names for a sentence: `'a', 'b'`."""
    return ", ".join(map(repr, names))

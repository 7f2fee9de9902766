"""The arguments that say how the captions of a data set are laid out, for all commands."""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from virtex.commands.arguments import Arguments
from virtex.errors import UserError

if TYPE_CHECKING:
    from virtex.config.data import Data

_KEYS = {
    "--image-column": "DATA.COLUMNS.IMAGE",
    "--caption-column": "DATA.COLUMNS.CAPTION",
    "--split-column": "DATA.COLUMNS.SPLIT",
    "--id-column": "DATA.COLUMNS.ID",
    "--group-column": "DATA.GROUP_COLUMN",
    "--separator": "DATA.SEPARATOR",
    "--image-separator": "DATA.IMAGE_SEPARATOR",
    "--image-directory": "DATA.IMAGE_DIRECTORY",
    "--encoding": "DATA.ENCODING",
    "--val-share": "DATA.VAL_SHARE",
}
"""The setting that each flag stands for."""

_HELP = {
    "--image-column": "column of the images' paths in tables (default: image, or a similar name)",
    "--caption-column": "column of the captions in tables, or their key in the JSON of shards "
    "(default: caption, or a similar name)",
    "--split-column": "column that names the split of a row, train or val, in one table for both",
    "--id-column": "column of the images' ids in tables (default: image_id, if there is one)",
    "--group-column": "column of tables that names the patient, scene or product of an image, of "
    "which all images stay in one split",
    "--separator": "character between the values of tables, such as ';', or tab (default: by the "
    "extension)",
    "--image-separator": "character between the paths of several images of one caption",
    "--image-directory": "directory that the paths in a table are relative to (default: that of "
    "the table)",
    "--encoding": "encoding of tables and of text files, such as cp1252 (default: utf-8)",
    "--val-share": "share of the training images to draw for validation, such as 0.02, for data "
    "without a validation split",
}
SHARD_FLAGS = ("--caption-column", "--encoding")
"""The flags that apply to shards."""


def add_layout_overrides(group: Arguments) -> None:
    """Add the flags to a command with `--config-override`, which takes their settings."""
    for flag, key in _KEYS.items():
        group.add_argument(
            flag,
            action=_Override,
            key=key,
            default=argparse.SUPPRESS,
            metavar=_metavar(flag),
            help=f"{_HELP[flag]}; the same as {key}",
        )


ALL_FLAGS = tuple(_KEYS)


def add_layout_arguments(group: Arguments, flags: Sequence[str] = ALL_FLAGS) -> None:
    """Add flags to a command without settings."""
    for flag in flags:
        group.add_argument(flag, type=_checked(flag), metavar=_metavar(flag), help=_HELP[flag])


def given_flags(arguments: argparse.Namespace) -> list[str]:
    """Those of all flags of `add_layout_arguments` that are given."""
    return [flag for flag in ALL_FLAGS if getattr(arguments, _attribute(flag)) is not None]


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of the flags of `add_layout_arguments` that are given, by key."""
    return {
        key: value
        for flag, key in _KEYS.items()
        if (value := getattr(arguments, _attribute(flag), None)) is not None
    }


def data_of(arguments: argparse.Namespace, **settings: Any) -> "Data":
    """The `DATA` settings of the flags of `add_layout_arguments`, with other `settings`.

    Raises `UserError` for flags that do not apply to the format.
    """
    from pydantic import ValidationError

    from virtex.config.data import Data
    from virtex.config.sources import Columns

    given = {
        key.removeprefix("DATA.").lower(): value for key, value in given_settings(arguments).items()
    }
    columns = {key.removeprefix("columns."): given.pop(key) for key in list(given) if "." in key}
    try:
        return Data(columns=Columns(**columns), **given, **settings)
    except ValidationError as error:
        problems = [str(detail["ctx"]["error"]) for detail in error.errors()]
        raise UserError(_with_flags("; ".join(problems))) from None


def _with_flags(message: str) -> str:
    for flag, key in _KEYS.items():
        message = message.replace(key, flag)
    return message.replace("DATA.FORMAT", "the format")


class _Override(argparse.Action):
    """Append the setting of a flag to `config_override`."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, key: str, **kwargs: Any
    ) -> None:
        super().__init__(option_strings, dest, **kwargs)
        self._key = key

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - of argparse
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,  # noqa: ARG002
    ) -> None:
        value = values if self._key == "DATA.VAL_SHARE" else json.dumps(values, ensure_ascii=False)
        namespace.config_override = [*namespace.config_override, self._key, value]


def _checked(flag: str) -> Any:
    """The type of a flag's value."""
    if flag == "--val-share":
        return _share
    if flag in ("--separator", "--image-separator", "--encoding"):
        return lambda text: _by_schema(flag, text)
    return _name


def _name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1")
    return share


def _by_schema(flag: str, text: str) -> str | None:
    from virtex.config import sources

    parse = sources.parse_encoding if flag == "--encoding" else sources.parse_separator
    try:
        return parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _metavar(flag: str) -> str:
    match flag:
        case "--separator" | "--image-separator":
            return "CHARACTER"
        case "--val-share":
            return "SHARE"
        case "--image-directory":
            return "DIR"
        case _:
            return "NAME"


def _attribute(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")

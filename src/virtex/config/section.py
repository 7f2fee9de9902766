"""What all sections of the configuration share: frozen values, upper-case keys, and conflicts."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo, model_validator

from virtex.files import LOCAL_ONLY, is_address

Text = TypeVar("Text", str, tuple[str, ...])

Conflict = tuple[tuple[str, ...], str]
"""Dotted keys whose values do not fit each other, and what was expected, with the remedy."""


class Section(BaseModel):
    """Built by field name in code, by upper-case key from YAML."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=str.upper,
        validate_by_name=True,
        allow_inf_nan=False,
    )


def reports_conflicts(find: Callable[[Any], Iterable[Conflict]]) -> Any:
    """Turn a method that yields conflicts into a check of its section.

    Conflicts are appended to the context of the validation, so that all of them can be reported
    together; without a context they raise ValueError.
    """

    def check(section: Section, info: ValidationInfo) -> Section:
        conflicts = list(find(section))
        if info.context is not None:
            info.context.extend(conflicts)
        elif conflicts:
            raise ValueError(conflict_text(conflicts))
        return section

    return model_validator(mode="after")(check)


def conflict_text(conflicts: Iterable[Conflict]) -> str:
    """Conflicts in one line, without values and their origins."""
    return "; ".join(f"{', '.join(keys)}: {reason}" for keys, reason in conflicts)


def parsed_by(parse: Callable[[Text], object]) -> AfterValidator:
    """Check that `parse` accepts a text without ValueError; the text itself is kept."""

    def check(text: Text) -> Text:
        parse(text)
        return text

    return AfterValidator(check)


def _local(path: Path) -> Path:
    if is_address(path):
        raise ValueError(LOCAL_ONLY)
    return path


LocalPath = Annotated[Path, AfterValidator(_local)]
"""A path of the local file system, never an address."""

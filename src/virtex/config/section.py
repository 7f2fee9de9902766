"""What every section of the configuration has: frozen values, upper-case keys, own checks."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from virtex.files import LOCAL_ONLY, is_address

Text = TypeVar("Text", str, tuple[str, ...])

# Keys that do not fit each other, dotted from their section, and what was expected.
Conflict = tuple[tuple[str, ...], str]


EARLIER_RUN = {"earlier_run": True}
"""Context for settings that a run was made with: what only a run to come must satisfy passes."""


def of_earlier_run(info: ValidationInfo) -> bool:
    """Whether the context is `EARLIER_RUN`."""
    return info.context == EARLIER_RUN


class Section(BaseModel):
    """Built by field name in code, by upper-case key from YAML."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=str.upper,
        validate_by_name=True,
        allow_inf_nan=False,
    )

    def refuse(self, conflicts: Iterable[Conflict]) -> Self:
        """This section; raises one error that holds all conflicts, if there are any."""
        errors = [
            InitErrorDetails(
                type=PydanticCustomError("conflict", "{reason}", {"keys": keys, "reason": reason}),
                loc=(),
                input=None,
            )
            for keys, reason in conflicts
        ]
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self


def parsed_by(parse: Callable[[Text], object]) -> AfterValidator:
    """A check that accepts what `parse` reads without `ValueError`, and keeps it as written."""

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

"""JSON files that are checked against a pydantic model, and a message for the first mistake."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from virtex.errors import UserError

Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class JsonFile(BaseModel):
    """A JSON object whose values are never converted."""

    model_config = ConfigDict(strict=True, frozen=True)


File = TypeVar("File", bound=JsonFile)


def parse_json(model: type[File], content: bytes, wrong: str, remedy: str) -> File:
    """Parse the bytes of a file.

    Raises UserError, which begins with `wrong`, names the key and ends with `remedy`.
    """
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{wrong}: {_first_problem(model, error)}; {remedy}") from error


def _first_problem(model: type[JsonFile], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    # A misspelt key explains why another one is missing.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    key, *inside = first["loc"] or ("",)
    value = first["input"]
    message = first["msg"].removeprefix("Value error, ")
    match first["type"]:
        case "json_invalid":
            return f"it is not JSON ({message.removeprefix('Invalid JSON: ')})"
        case "model_type":
            return "it does not hold a JSON object"
        case "missing":
            return f"it has no {key!r}"
        case "extra_forbidden":
            keys = ", ".join(model.model_fields)
            return f"it has the unknown key {str(key)[:50]!r}; the keys are {keys}"
        case "too_short":
            return f"{key!r} is empty"
        case "value_error":
            return message
    where = f"{key!r}, item {inside[0]}," if inside else f"{key!r}"
    return f"{where} is {value!r:.100}; {message[0].lower()}{message[1:]}"

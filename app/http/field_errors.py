"""Errors in fields and parameters, in our words, as Pydantic finds them in requests and in imported files."""

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from app.error_types import ErrorType
from app.errors import FieldError, ValidationFailedError
from app.suggestions import suggestion

if TYPE_CHECKING:  # see `app.auth.principal`
    from fastapi.exceptions import RequestValidationError

M = TypeVar("M", bound=BaseModel)

MAX_LISTED_ERRORS = 100
"""Maximum number of errors that a problem response lists."""
MISSING_MESSAGE = "Must be given"
"""The message of an error of the type `missing`."""
_MESSAGES = {
    "bool_type": "Must be true or false",
    "extra_forbidden": "There is no such field or parameter",
    "greater_than_equal": "Must be at least {ge}",
    "int_parsing": "Must be a whole number",
    "int_parsing_size": "Must be a number with fewer digits",
    "int_type": "Must be a whole number",
    "less_than": "Must be less than {lt}",
    "less_than_equal": "Must be at most {le}",
    "list_type": "Must be a list",
    "literal_error": "Must be {expected}",
    "missing": MISSING_MESSAGE,
    "model_attributes_type": "Must be an object",
    "string_pattern_mismatch": "Must match the regular expression {pattern}",
    "string_too_long": "Must have at most {max_length} characters",
    "string_too_short": "Must have {min_length} or more characters",
    "string_type": "Must be text",
    "string_unicode": "Must not contain lone surrogates, which are not characters",
    "too_long": "Must have at most {max_length} items",
    "too_short": "Must have {min_length} or more items",
}
"""The messages of the errors that Pydantic finds by itself, by type. Errors of other types have their own messages."""
_FIELD_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def safe_location_part(part: str | int) -> str | int:
    """Return a part of an error's location, or a placeholder if the part is a key that does not look like a field name.

    Such a key comes from the client and may be patient data.
    """
    return part if isinstance(part, int) or _FIELD_NAME_PATTERN.fullmatch(part) else "(a key that is not a field name)"


def field_errors(
    error: "ValidationError | RequestValidationError", schema: type[BaseModel] | None, location: str | None = None
) -> list[FieldError]:
    """Return the field errors of a failed validation. They contain no input, and Pydantic's messages are reworded.

    An unknown field gets the name of the most similar field of `schema`. If `schema` is not the schema of the whole
    request, `location` is put in front of the locations of the errors, such as `query`.
    """
    located_errors: list[FieldError] = []
    for item in error.errors():
        path = item["loc"] if location is None else (location, *item["loc"])
        message = _MESSAGES[item["type"]].format_map(item.get("ctx", {})) if item["type"] in _MESSAGES else item["msg"]
        # further errors are not listed, and suggestions take time
        if item["type"] == "extra_forbidden" and len(located_errors) < MAX_LISTED_ERRORS:
            message += f"; {_suggestion(schema, item['loc'])}"
        located_errors.append(
            FieldError(tuple(safe_location_part(part) for part in path), message, cast("ErrorType", item["type"]))
        )
    return located_errors


def validated_body(schema: type[M], values: Any) -> M:
    """Return parsed JSON, or values that do not come as a body, such as the line of a file, as a body of this schema.

    Raises:
        ValidationFailedError: values are wrong. The locations of its errors are in the body.
    """
    try:
        return schema.model_validate(values, from_attributes=True)  # as FastAPI does, whose error says "an object"
    except ValidationError as error:
        raise ValidationFailedError(field_errors(error, schema, "body")) from None


def _suggestion(schema: type[BaseModel] | None, path: Sequence[str | int]) -> str:
    """Return the suggestion for the unknown field of `schema` that is at this path."""
    *parents, name = path
    for part in parents:
        field = schema.model_fields.get(str(part)) if schema else None
        schema = next(_schemas_in(field.annotation), None) if field else schema
    known_names = schema.model_fields if schema is not None and _FIELD_NAME_PATTERN.fullmatch(str(name)) else ()
    return suggestion(str(name), known_names, "/docs lists all of them")


def _schemas_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the schemas in the annotation of a field, such as that of `Schema | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _schemas_in(argument)

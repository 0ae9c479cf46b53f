"""Validation of lines: each line is the body of a request, checked by the API's schemas, with their error messages."""

from typing import Any, NamedTuple

from pydantic import ValidationError, create_model

from app.errors import FieldError
from app.fields.schemas import RequestBody
from app.fields.types import Identifier, PastTimestamp
from app.http.problems import field_errors
from app.transfer.reading import ParsedLine
from app.transfer.resources import TransferableResource

TIMESTAMP_FIELDS = ("date_created", "last_updated")


class ValidLine(NamedTuple):
    """A line that is valid as far as can be determined without the database."""

    line_number: int
    values: dict[str, Any]
    """The fields that the line sets, and no others."""


class LineValidator:
    """Validates the lines of one resource.

    With `overwrite`, fields that a new record requires may be missing, because the record may already exist.
    """

    def __init__(self, resource: TransferableResource, *, overwrite: bool) -> None:
        base: type[RequestBody] = resource.update_schema if overwrite else resource.create_schema
        timestamp_field: Any = (PastTimestamp, None)
        self._schema = create_model(
            base.__name__,
            __base__=base,
            unique_id=(Identifier, ""),
            date_created=timestamp_field,
            last_updated=timestamp_field,
        )

    def validate(self, line: ParsedLine) -> ValidLine | list[FieldError]:
        """Return the values of a line, or all of its errors."""
        if line.record is None:
            return list(line.errors)
        try:
            values = self._schema.model_validate(line.record, from_attributes=True).sent_fields()  # as FastAPI does
        except ValidationError as error:
            return field_errors(error)
        created, updated = (values.get(name) for name in TIMESTAMP_FIELDS)
        if created and updated and updated < created:
            return [FieldError(("last_updated",), "Must not be before date_created", "moment_order")]
        return ValidLine(line.line_number, values)
